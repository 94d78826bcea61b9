//! Bytes that clients make the server hold before they have asked for anything whole, in total.
//!
//! # Invariants
//! - What is held is taken before it is kept, and given back when its share is dropped.
//! - The first bytes of each share are free, as a connection's own buffers are: whoever sends little is served however
//!   much others hold.
//! - One tenant cannot take all: see [`share_of`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::Tenant;
use crate::event::limits::{SHARE_BYTES_FREE, share_of};

/// See the module.
#[derive(Debug)]
pub struct Budget(Arc<Held>);

#[derive(Debug)]
struct Held {
    bytes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Who holds nothing is not in it.
    by_tenant: HashMap<Tenant, usize>,
}

impl Held {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room for more.
    fn take(&self, tenant: &Tenant, bytes: usize) -> bool {
        let mut taken = self.taken();
        let of_tenant = taken.by_tenant.get(tenant).copied().unwrap_or(0);
        let of_tenant = of_tenant.saturating_add(bytes);
        let Some(free) = self.bytes_max.saturating_sub(taken.all).checked_sub(bytes) else {
            return false;
        };
        if of_tenant > share_of(free) {
            return false;
        }
        taken.all = taken.all.saturating_add(bytes);
        taken.by_tenant.insert(tenant.clone(), of_tenant);
        true
    }

    fn give_back(&self, tenant: &Tenant, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut taken = self.taken();
        taken.all = taken.all.saturating_sub(bytes);
        if let Some(of_tenant) = taken.by_tenant.get_mut(tenant) {
            *of_tenant = of_tenant.saturating_sub(bytes);
            if *of_tenant == 0 {
                taken.by_tenant.remove(tenant);
            }
        }
    }
}

impl Budget {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Held {
            bytes_max,
            taken: Mutex::default(),
        }))
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(&self, tenant: &Tenant) -> Share {
        Share {
            held: Arc::clone(&self.0),
            tenant: tenant.clone(),
            free: SHARE_BYTES_FREE,
            taken: 0,
        }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken().all
    }

    /// Whether the tenant holds more than half of what it may: what can wait should.
    #[must_use]
    pub fn is_tight(&self, tenant: &Tenant) -> bool {
        let taken = self.0.taken();
        let of_tenant = taken.by_tenant.get(tenant).copied().unwrap_or(0);
        of_tenant > share_of(self.0.bytes_max.saturating_sub(taken.all)) / 2
    }
}

/// What one client holds of a budget.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    tenant: Tenant,
    free: usize,
    taken: usize,
}

impl Share {
    /// Makes it a share of `bytes`, the free ones included. Whether there was room; if not, nothing has changed.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(self.free);
        if let Some(less) = self.taken.checked_sub(wanted) {
            self.held.give_back(&self.tenant, less);
        } else if !self
            .held
            .take(&self.tenant, wanted.saturating_sub(self.taken))
        {
            return false;
        }
        self.taken = wanted;
        true
    }

    /// Keeps a share of `bytes`; the rest goes to another.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let kept = self.taken.min(bytes.saturating_sub(self.free));
        let rest = self.taken.saturating_sub(kept);
        self.taken = kept;
        Self {
            held: Arc::clone(&self.held),
            tenant: self.tenant.clone(),
            free: 0,
            taken: rest,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.give_back(&self.tenant, self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_what_there_is_and_give_it_back() {
        let budget = Budget::new(100);
        let [a, b, c] = ["a", "b", "c"].map(|name| Tenant::parse(name).unwrap());
        let of = |bytes: usize| SHARE_BYTES_FREE + bytes;
        let (mut one, mut other) = (budget.share(&a), budget.share(&a));
        assert!(one.resize(SHARE_BYTES_FREE), "free");
        assert_eq!(budget.taken(), 0);
        assert!(one.resize(of(60)) && !other.resize(of(16)) && other.resize(of(15)));
        assert_eq!(budget.taken(), 75, "a tenant alone");
        assert!(budget.is_tight(&a) && !budget.is_tight(&b) && !one.resize(of(61)));
        let (mut second, mut third) = (budget.share(&b), budget.share(&c));
        assert!(second.resize(of(18)) && !second.resize(of(19)) && third.resize(of(5)));
        assert_eq!(budget.taken(), 98);
        drop((second, third));
        assert!(one.resize(of(10)), "smaller");
        assert_eq!(budget.taken(), 25);
        assert!(one.resize(of(30)));
        let rest = one.split(of(10));
        assert_eq!(budget.taken(), 45);
        drop(rest);
        assert_eq!(budget.taken(), 25);
        assert!(one.resize(of(20)), "it grows from what it kept");
        assert_eq!(budget.taken(), 35);
        drop(one.split(0));
        drop((one, other));
        assert_eq!(budget.taken(), 0);
        assert!(budget.0.taken().by_tenant.is_empty());
        assert!(!budget.share(&a).resize(usize::MAX));
    }
}
