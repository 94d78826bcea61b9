//! How long something may last that was begun with a credential: no longer than the credential.
//!
//! # Invariants
//! - Whatever outlives the request that asked for it (a socket, a stream, a long-poll, an upload) holds a lease.
//! - A lease knows what its credential granted when it began: it does not outlive a change of that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::api_key::KeyId;
use super::jwt::Denied;
use super::principal::{Credential, Principal};

/// A wait that nobody waits for.
const FAR: Duration = Duration::from_hours(30 * 24);

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

    /// When the credential ends by itself; far away if it does not.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let left = self.expires_at.map_or(FAR, |at| {
            let ends = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at));
            ends.and_then(|ends| ends.duration_since(SystemTime::now()).ok())
                .unwrap_or_default()
                .min(FAR)
        });
        Instant::now()
            .checked_add(left)
            .unwrap_or_else(Instant::now)
    }

    /// Waits for the revocation, for ever if there is none.
    pub fn revoked(&self) -> WaitForCancellationFutureOwned {
        self.revoked.clone().cancelled_owned()
    }

    /// Whether it still counts.
    ///
    /// # Errors
    /// Why it has ended.
    pub fn check(&self) -> Result<(), Denied> {
        if self.revoked.is_cancelled() {
            Err(Denied::Revoked)
        } else if self.expires_at.is_some() && self.deadline() <= Instant::now() {
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
            () = self.revoked.cancelled() => Err(Denied::Revoked),
            () = tokio::time::sleep_until(self.deadline()), if self.expires_at.is_some() => Err(Denied::Expired),
            done = work => Ok(done),
        }
    }
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
