//! How long something may last that was begun with a credential: no longer than the credential.
//!
//! # Invariants
//! - Whatever outlives the request that asked for it (a socket, a stream, a long-poll, an upload) holds a lease.
//! - A lease knows what its credential granted when it began: it does not outlive a change of that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::api_key::KeyId;
use super::jwt::Denied;
use super::principal::{Credential, Principal};
use crate::tasks::pause;

/// The end of a credential is waited for this long at a time: the server's clock may be set meanwhile, and a timer does not go as
/// far as an end may lie.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Ends with its credential. Let go when dropped.
#[derive(Debug)]
pub struct Lease {
    expires_at: Option<u64>,
    revoked: CancellationToken,
    place: Place,
}

impl Lease {
    /// Which lease it is.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.place.number
    }

    /// Waits for the end of the credential, by time or by revocation, and says which; for ever if there is none. It goes on waiting for
    /// this one when the lease is gone.
    pub fn ended(&self) -> impl Future<Output = Denied> + Send + use<> {
        let (expires_at, revoked) = (self.expires_at, self.revoked.clone());
        async move {
            tokio::select! {
                biased;
                () = revoked.cancelled() => Denied::Ended,
                () = expired(expires_at) => Denied::Expired,
            }
        }
    }

    /// Whether it still counts.
    ///
    /// # Errors
    /// Why it has ended.
    pub fn check(&self) -> Result<(), Denied> {
        if self.revoked.is_cancelled() {
            Err(Denied::Ended)
        } else if self.expires_at.is_some_and(has_passed) {
            Err(Denied::Expired)
        } else {
            Ok(())
        }
    }

    /// Runs `work` to its end, or to that of the credential.
    ///
    /// # Errors
    /// Why the credential has ended.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Denied> {
        tokio::select! {
            biased;
            why = self.ended() => Err(why),
            done = work => Ok(done),
        }
    }
}

/// Waits for a time in seconds since 1970; for ever if there is none.
async fn expired(at: Option<u64>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    while let Some(left) = left(at) {
        pause(left.min(WAIT_MAX)).await;
    }
}

/// What is left until a time in seconds since 1970, if anything.
fn left(at: u64) -> Option<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let left = Duration::from_secs(at).checked_sub(now.unwrap_or_default());
    left.filter(|left| !left.is_zero())
}

/// Whether a credential that ends then, in seconds since 1970, has ended.
pub(super) fn has_passed(at: u64) -> bool {
    left(at).is_none()
}

/// All leases of a server.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<All>);

#[derive(Debug, Default)]
struct All {
    next: AtomicU64,
    held: Mutex<HashMap<u64, (Principal, CancellationToken)>>,
}

/// One lease's place among all.
#[derive(Debug)]
struct Place {
    all: Leases,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self
            .all
            .0
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.number);
    }
}

impl Leases {
    /// A lease for this principal.
    #[must_use]
    pub fn begin(&self, principal: &Principal) -> Lease {
        let revoked = CancellationToken::new();
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(number, (principal.clone(), revoked.clone()));
        drop(held);
        Lease {
            expires_at: principal.expires_at,
            revoked,
            place: Place {
                all: self.clone(),
                number,
            },
        }
    }

    /// Ends those whose credential has ended, or grants something else.
    pub(super) fn end_where(&self, has_ended: impl Fn(&Principal) -> bool) {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (holder, revoked) in held.values() {
            if has_ended(holder) {
                revoked.cancel();
            }
        }
    }

    /// The keys that are in use.
    pub(super) fn keys(&self) -> HashSet<KeyId> {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |holder: &Principal| match &holder.credential {
            Credential::ApiKey { id, .. } => Some(id.clone()),
            Credential::Token { .. } | Credential::None => None,
        };
        held.values()
            .filter_map(|(holder, _)| key(holder))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::pause;

    const DAY: Duration = Duration::from_hours(24);

    /// Of a credential that ends so many days from now.
    fn lease(all: &Leases, days: Option<u64>) -> Lease {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        all.begin(&Principal {
            expires_at: days.map(|days| now.saturating_add(days.saturating_mul(DAY.as_secs()))),
            ..Principal::development()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_months_or_never_has_not_expired_after_one() {
        let all = Leases::default();
        for days in [None, Some(60), Some(10_000), Some(u64::MAX)] {
            let lease = lease(&all, days);
            assert_eq!(lease.check(), Ok(()), "{days:?}");
            let work = pause(DAY.saturating_mul(40));
            assert_eq!(lease.run(work).await, Ok(()), "{days:?}");
        }
    }
    #[tokio::test(start_paused = true)]
    async fn what_ends_says_how() {
        let all = Leases::default();
        let (expired, revoked) = (lease(&all, Some(0)), lease(&all, Some(60)));
        assert_eq!(expired.check(), Err(Denied::Expired));
        assert_eq!(expired.ended().await, Denied::Expired);
        let (never, ended) = (lease(&all, None).ended(), revoked.ended());
        let year = DAY.saturating_mul(365);
        assert!(tokio::time::timeout(year, never).await.is_err());
        all.end_where(|holder| holder.expires_at.is_some());
        assert_eq!(ended.await, Denied::Ended);
        assert_eq!(revoked.run(pause(DAY)).await, Err(Denied::Ended));
    }
}
