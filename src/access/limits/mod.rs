//! How much a tenant and a credential may ask of this server: events, bytes, reads of history and administrative requests by
//! the second, connections and subscriptions by their number.
//!
//! # Invariants
//! - The one place that counts, for every transport. Each server counts for itself: two servers let through twice as much.
//! - Without a rate nothing is remembered of anybody who is not connected.
//! - The credential's bucket is asked first: what one credential asks in vain costs its tenant nothing.

pub mod key;
pub mod places;
pub mod rate;

use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::ser::SerializeStruct as _;

pub use key::Keys;
pub use places::{NoPlace, Place, Places};
pub use rate::{Buckets, Rate};

use super::Principal;
use crate::event::limits::{ARRAY_EVENTS_MAX, BODY_BYTES_MAX};

/// What is counted by the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Events to be appended.
    Events,
    /// Bytes of their requests.
    Bytes,
    /// Reads of history: pages that the window does not hold.
    Reads,
    /// Requests of administrators.
    Administration,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The credential's own.
    Credential,
    /// Of all credentials of its tenant.
    Tenant,
}

/// What a tenant or a credential may ask for; none: as much as it likes.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// Events appended.
    pub events: Option<Rate>,
    /// Bytes of requests that append.
    pub bytes: Option<Rate>,
    /// Reads of history.
    pub reads: Option<Rate>,
    /// Requests of administrators.
    pub administration: Option<Rate>,
    /// Open connections.
    pub connections: Option<usize>,
    /// Subscriptions.
    pub subscriptions: Option<usize>,
}

/// What all may ask for.
#[derive(Debug, Clone, Default)]
pub struct Allowances {
    /// Each tenant.
    pub tenant: Allowance,
    /// Each credential.
    pub credential: Allowance,
    /// Open connections of all.
    pub connections: usize,
    /// Subscriptions of all.
    pub subscriptions: usize,
}

/// The buckets of one scope.
#[derive(Debug)]
struct Meters {
    events: Option<Buckets>,
    bytes: Option<Buckets>,
    reads: Option<Buckets>,
    administration: Option<Buckets>,
}

impl Meters {
    fn new(allowance: &Allowance) -> Self {
        let buckets = |rate: Option<Rate>, largest: usize| {
            let largest = u32::try_from(largest).ok().and_then(NonZeroU32::new);
            rate.map(|rate| Buckets::new(rate, largest.unwrap_or(NonZeroU32::MIN)))
        };
        Self {
            events: buckets(allowance.events, ARRAY_EVENTS_MAX),
            bytes: buckets(allowance.bytes, BODY_BYTES_MAX),
            reads: buckets(allowance.reads, 10),
            administration: buckets(allowance.administration, 10),
        }
    }

    const fn of(&self, quantity: Quantity) -> Option<&Buckets> {
        match quantity {
            Quantity::Events => self.events.as_ref(),
            Quantity::Bytes => self.bytes.as_ref(),
            Quantity::Reads => self.reads.as_ref(),
            Quantity::Administration => self.administration.as_ref(),
        }
    }
}

/// What a bucket of the caller said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whose bucket.
    pub scope: Scope,
    /// Of what.
    pub quantity: Quantity,
    /// Tokens that are left.
    pub left: u32,
    /// When it will be full.
    pub full_in: Duration,
}

/// Why something is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// Not now.
    Later {
        /// Whose limit.
        scope: Scope,
        /// Of what.
        quantity: Quantity,
        /// When there will be enough, if nobody else takes it.
        wait: Duration,
    },
    /// Never: it is more than a full bucket holds.
    Never {
        /// Whose limit.
        scope: Scope,
        /// Of what.
        quantity: Quantity,
        /// What a full bucket holds.
        burst: NonZeroU32,
    },
}

/// Whose limits are asked, the narrower first.
const SCOPES: [Scope; 2] = [Scope::Credential, Scope::Tenant];

/// See the module. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    secret: RandomState,
    tenant: Meters,
    credential: Meters,
    connections: Places,
    subscriptions: Places,
}

impl Limits {
    /// Limits of which nothing is used.
    #[must_use]
    pub fn new(all: &Allowances) -> Self {
        let (tenant, credential) = (&all.tenant, &all.credential);
        Self(Arc::new(Inner {
            secret: RandomState::new(),
            tenant: Meters::new(tenant),
            credential: Meters::new(credential),
            connections: Places::new(all.connections, tenant.connections, credential.connections),
            subscriptions: Places::new(
                all.subscriptions,
                tenant.subscriptions,
                credential.subscriptions,
            ),
        }))
    }

    /// What is counted for this caller.
    #[must_use]
    pub fn account(&self, principal: &Principal) -> Account {
        Account {
            keys: Keys::of(principal, &self.0.secret),
            limits: self.clone(),
        }
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.count()
    }

    /// Whether any of these is limited.
    #[must_use]
    pub fn has_rate(&self, quantities: &[Quantity]) -> bool {
        let mut limited = SCOPES
            .iter()
            .flat_map(|scope| quantities.iter().map(|one| self.buckets(*scope, *one)));
        limited.any(|buckets| buckets.is_some())
    }

    /// The buckets of a limit, if there is one.
    #[must_use]
    pub fn buckets(&self, scope: Scope, quantity: Quantity) -> Option<&Buckets> {
        match scope {
            Scope::Credential => self.0.credential.of(quantity),
            Scope::Tenant => self.0.tenant.of(quantity),
        }
    }

    /// What every caller can get of this within a tenth of a second, at most `most` and at least one.
    #[must_use]
    pub fn in_a_moment(&self, quantity: Quantity, most: usize) -> usize {
        let rates = SCOPES.iter().filter_map(|scope| {
            let buckets = self.buckets(*scope, quantity)?;
            let tokens = buckets.per_second().min(buckets.burst());
            usize::try_from(tokens.get().div_ceil(10)).ok()
        });
        rates.min().unwrap_or(most).min(most)
    }
}

/// What is counted for one caller.
#[derive(Debug, Clone)]
pub struct Account {
    limits: Limits,
    keys: Keys,
}

impl Account {
    /// Takes so many tokens from each bucket that there is, and tells `readings` what the buckets said.
    ///
    /// # Errors
    /// If one of them does not hold so many.
    pub fn take(
        &self,
        quantity: Quantity,
        amount: usize,
        mut readings: impl FnMut(Reading),
    ) -> Result<(), Exceeded> {
        let Some(tokens) = NonZeroU32::new(u32::try_from(amount).unwrap_or(u32::MAX)) else {
            return Ok(());
        };
        // Before anything is taken: it would be in vain.
        for scope in SCOPES {
            if let Some(buckets) = self.limits.buckets(scope, quantity)
                && tokens > buckets.burst()
            {
                let burst = buckets.burst();
                return Err(Exceeded::Never {
                    scope,
                    quantity,
                    burst,
                });
            }
        }
        let mut of_credential = Duration::ZERO;
        for scope in SCOPES {
            let Some(buckets) = self.limits.buckets(scope, quantity) else {
                continue;
            };
            let key = match scope {
                Scope::Credential => self.keys.credential,
                Scope::Tenant => self.keys.tenant,
            };
            let level = buckets.take(key, tokens);
            readings(Reading {
                scope,
                quantity,
                left: level.left,
                full_in: buckets.full_in(level.left),
            });
            if !level.wait.is_zero() {
                return Err(Exceeded::Later {
                    scope,
                    quantity,
                    wait: level.wait.max(of_credential),
                });
            }
            // Should the tenant's refuse, these must have come again as well.
            of_credential = buckets.time_of(tokens.get().saturating_sub(level.left));
        }
        Ok(())
    }

    /// A place for a connection.
    ///
    /// # Errors
    /// Whose bound has been reached.
    pub fn connect(&self) -> Result<Place, NoPlace> {
        self.limits.0.connections.take(self.keys)
    }

    /// A place for a subscription.
    ///
    /// # Errors
    /// Whose bound has been reached.
    pub fn subscribe(&self) -> Result<Place, NoPlace> {
        self.limits.0.subscriptions.take(self.keys)
    }

    /// The limits that it counts against.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Serialize for Buckets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rate = serializer.serialize_struct("Rate", 2)?;
        rate.serialize_field("per_second", &self.per_second())?;
        rate.serialize_field("burst", &self.burst())?;
        rate.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Label, Tenant};

    fn caller(tenant: &str, name: &str) -> Principal {
        Principal {
            tenant: Tenant::parse(tenant).unwrap(),
            name: Label::parse(name).unwrap(),
            credential: crate::access::Credential::Token {
                id: None,
                issued_at: None,
            },
            ..Principal::development()
        }
    }

    fn limits(tenant: Option<&str>, credential: Option<&str>) -> Limits {
        let of = |rate: Option<&str>| Allowance {
            events: rate.map(|rate| rate.parse().unwrap()),
            ..Allowance::default()
        };
        Limits::new(&Allowances {
            tenant: of(tenant),
            credential: of(credential),
            ..Allowances::default()
        })
    }

    fn wait(account: &Account, amount: usize) -> Option<(Scope, u128)> {
        match account.take(Quantity::Events, amount, |_| {}) {
            Ok(()) => None,
            Err(Exceeded::Later { scope, wait, .. }) => Some((scope, wait.as_millis())),
            Err(never) => panic!("{never:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_credential_cannot_use_up_its_tenants_and_no_tenant_anothers() {
        let limits = limits(Some("100:100"), Some("50:50"));
        let loud = limits.account(&caller("a", "loud"));
        let quiet = limits.account(&caller("a", "quiet"));
        assert_eq!(wait(&loud, 50), None);
        for _ in 0..100 {
            assert_eq!(wait(&loud, 10), Some((Scope::Credential, 200)));
        }
        assert_eq!(wait(&quiet, 50), None, "its tenant's are still there");
        let third = limits.account(&caller("a", "third"));
        assert_eq!(wait(&third, 30), Some((Scope::Tenant, 300)));
        // Both must have come again: the credential's own took 30 in vain.
        assert_eq!(wait(&third, 30), Some((Scope::Credential, 200)));
        assert_eq!(wait(&limits.account(&caller("b", "loud")), 50), None);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(wait(&third, 30), None);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_full_bucket_holds_takes_nothing() {
        let limits = limits(Some("10:10"), Some("100:100"));
        let account = limits.account(&caller("a", "a"));
        let refused = account.take(Quantity::Events, 11, |_| {});
        assert!(
            matches!(refused, Err(Exceeded::Never { scope: Scope::Tenant, burst, .. }) if burst.get() == 10)
        );
        let mut readings = Vec::new();
        account
            .take(Quantity::Events, 10, |reading| readings.push(reading.left))
            .unwrap();
        assert_eq!(readings, [90, 0]);
        assert_eq!(limits.in_a_moment(Quantity::Events, 2_000), 1);
        assert_eq!(limits.in_a_moment(Quantity::Bytes, 2_000), 2_000);
    }
}
