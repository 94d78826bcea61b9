//! Turns of those who are behind: however many come back at once, those who are live hardly notice.
//!
//! # Invariants
//! - So many at once as half of the cores; tenants take turns, and within a tenant who came first is first. After a turn
//!   there is a rest as long as it took: what catches up takes a part of the machine, never all of it.
//! - Nobody waits for a turn while holding one, and a turn ends before its holder waits for a line or for the database.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use scopeguard::ScopeGuard;

use crate::event::Tenant;
use crate::fair::{Fair, Permit};
use crate::tasks::pause;

/// Turns are rested when they have taken this long together: timers tick in milliseconds.
const REST_MIN: Duration = Duration::from_millis(1);
/// A turn that was held up by the machine is not repaid in full.
const REST_MAX: Duration = Duration::from_millis(20);

/// The right of a reader that is behind to be handed a page. Ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    began: Instant,
    _permit: Permit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.turns.owed_us.fetch_add(took, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Turns {
    free: Arc<Fair>,
    /// Microseconds that turns have taken and that have not been rested.
    owed_us: AtomicU64,
}

impl Turns {
    /// Turns for half of this machine's cores, at least one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::at_once(cores.div_euclid(2).max(1))
    }

    fn at_once(turns: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Fair::new(turns),
            owed_us: AtomicU64::new(0),
        })
    }

    /// So many wait for a turn.
    pub fn waiting(&self) -> usize {
        self.free.waiting()
    }

    /// Waits for a turn.
    pub async fn next(self: &Arc<Self>, tenant: &Tenant) -> Option<Turn> {
        let permit = self.free.acquire(tenant).await?;
        let owed_us = self.owed_us.load(Ordering::Relaxed);
        let owed = Duration::from_micros(owed_us);
        if owed >= REST_MIN {
            self.owed_us.store(0, Ordering::Relaxed);
            // Who gives up has not rested: it is still owed.
            let debt = scopeguard::guard(owed_us, |owed_us| {
                self.owed_us.fetch_add(owed_us, Ordering::Relaxed);
            });
            pause(owed.min(REST_MAX)).await;
            let _ = ScopeGuard::into_inner(debt);
        }
        Some(Turn {
            turns: Arc::clone(self),
            began: Instant::now(),
            _permit: permit,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn no_more_at_once_than_there_are_turns_and_whoever_gives_up_holds_up_nobody() {
        let (turns, dev) = (Turns::at_once(2), Tenant::dev());
        let (first, second) = (
            turns.next(&dev).await.unwrap(),
            turns.next(&dev).await.unwrap(),
        );
        let mut third = Box::pin(turns.next(&dev));
        let mut fourth = Box::pin(turns.next(&dev));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        // The third was first to wait.
        assert!((&mut fourth).now_or_never().is_none());
        drop(third);
        assert!(fourth.await.is_some());
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_rested_as_long_as_it_took() {
        let (turns, dev) = (Turns::at_once(1), Tenant::dev());
        drop(turns.next(&dev).await);
        turns.owed_us.store(7_000, Ordering::Relaxed);
        let before = tokio::time::Instant::now();
        let turn = turns.next(&dev).await;
        assert_eq!(before.elapsed().as_millis(), 7);
        drop(turn);
        // What is owed grows by turns only, and however long one took, the rest is bounded.
        turns.owed_us.store(u64::MAX, Ordering::Relaxed);
        let before = tokio::time::Instant::now();
        drop(turns.next(&dev).await);
        assert_eq!(before.elapsed(), REST_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_is_given_up_is_still_owed() {
        let (turns, dev) = (Turns::at_once(1), Tenant::dev());
        turns.owed_us.store(7_000, Ordering::Relaxed);
        for _ in 0..3 {
            let mut gives_up = Box::pin(turns.next(&dev));
            assert!((&mut gives_up).now_or_never().is_none());
        }
        let before = tokio::time::Instant::now();
        drop(turns.next(&dev).await);
        assert_eq!(before.elapsed().as_millis(), 7);
    }
}
