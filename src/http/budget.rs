//! Bytes that clients make the server hold before they have asked for anything whole, in total.
//!
//! # Invariants
//! - What is held is taken before it is kept, and given back when its share is dropped.
//! - The first bytes of each share are free, as a connection's own buffers are: whoever sends little is served however
//!   much others hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::limits::SHARE_BYTES_FREE;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    left: Arc<Semaphore>,
    bytes_max: usize,
}

impl Budget {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let left = Arc::new(Semaphore::new(bytes_max));
        Self { left, bytes_max }
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            left: Arc::clone(&self.left),
            free: SHARE_BYTES_FREE,
            taken: None,
        }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.bytes_max.saturating_sub(self.left.available_permits())
    }

    /// Whether more than half is taken: what can wait should.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.left.available_permits() < self.bytes_max / 2
    }
}

/// What one client holds of a budget.
#[derive(Debug)]
pub struct Share {
    left: Arc<Semaphore>,
    free: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Makes it a share of `bytes`, the free ones included. Whether there was room; if not, nothing has changed.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        let (taken, wanted) = (self.taken(), bytes.saturating_sub(self.free));
        if let Some(less) = taken.checked_sub(wanted) {
            drop(self.taken.as_mut().and_then(|permits| permits.split(less)));
            return true;
        }
        let more = u32::try_from(wanted.saturating_sub(taken)).unwrap_or(u32::MAX);
        match (
            Arc::clone(&self.left).try_acquire_many_owned(more),
            &mut self.taken,
        ) {
            (Ok(more), Some(permits)) => permits.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return false,
        }
        true
    }

    /// Keeps a share of `bytes`; the rest goes to another.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let rest = self.taken().saturating_sub(bytes.saturating_sub(self.free));
        Self {
            left: Arc::clone(&self.left),
            free: 0,
            taken: self.taken.as_mut().and_then(|permits| permits.split(rest)),
        }
    }

    fn taken(&self) -> usize {
        self.taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_what_there_is_and_give_it_back() {
        let budget = Budget::new(100);
        let of = |bytes: usize| SHARE_BYTES_FREE + bytes;
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.resize(SHARE_BYTES_FREE), "free");
        assert_eq!(budget.taken(), 0);
        assert!(one.resize(of(60)) && !other.resize(of(41)) && other.resize(of(40)));
        assert_eq!(budget.taken(), 100);
        assert!(budget.is_tight() && !one.resize(of(61)));
        assert!(one.resize(of(10)), "smaller");
        assert_eq!(budget.taken(), 50);
        assert!(one.resize(of(30)));
        let rest = one.split(of(10));
        assert_eq!(budget.taken(), 70);
        drop(rest);
        assert_eq!(budget.taken(), 50);
        assert!(one.resize(of(20)), "it grows from what it kept");
        assert_eq!(budget.taken(), 60);
        drop(one.split(0));
        drop(other);
        assert_eq!(budget.taken(), 0);
        assert!(!budget.share().resize(usize::MAX));
    }
}
