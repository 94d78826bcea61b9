//! How large batches may be: small while latency matters, large under load.
//!
//! # Invariants
//! - Never below one event nor above the configured maximum; a single request is stored as a whole, whatever its size.
//! - Shrinks only on a batch that was slow, most on one that was so slow that it failed, and grows only when more waited than went into a batch that was fast.
//! - A small batch is no reason to shrink: it is the commit then that takes its time, and smaller batches make that no shorter
//!   but more of them. Without this a slow disk and steady urgent events brought all down to one event a commit.

use std::time::{Duration, Instant};

/// A batch is to take no longer while critical or high events come: they wait behind it.
const URGENT: Duration = Duration::from_millis(20);
/// And otherwise, so that those of normal priority stay well within 100 ms.
const USUAL: Duration = Duration::from_millis(60);
/// So few events, of so few bytes together, take about as long as one: half a millisecond more of the database's time.
const SMALL: usize = 32;
const SMALL_BYTES: usize = 64 * 1024;
/// So long after the last urgent event others may be expected.
const URGENT_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Load {
    limit: usize,
    max: usize,
    urgent_at: Option<Instant>,
}

/// What is known of a batch when it has been committed, or has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) events: usize,
    /// What they weigh together.
    pub(super) bytes: usize,
    /// Requests that went together; a single one is never split.
    pub(super) groups: usize,
    pub(super) took: Duration,
    /// More waited than it could hold.
    pub(super) was_full: bool,
}

impl Measured {
    const fn is_small(&self) -> bool {
        self.events <= SMALL && self.bytes <= SMALL_BYTES
    }
}

impl Load {
    /// Batches of at most `max` events.
    pub(super) const fn new(max: usize) -> Self {
        Self {
            limit: max,
            max,
            urgent_at: None,
        }
    }

    /// How many events a batch may hold now.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// An urgent event has come.
    pub(super) const fn urgent(&mut self, now: Instant) {
        self.urgent_at = Some(now);
    }

    /// A batch has not been stored within the time that a statement may take: a quarter of it may be.
    pub(super) fn timed_out(&mut self, batch: Measured) {
        if batch.groups > 1 && !batch.is_small() {
            self.limit = (batch.events.min(self.limit) / 4).max(1);
        }
    }

    /// A batch has been committed.
    pub(super) fn measured(&mut self, batch: Measured, now: Instant) {
        let is_urgent = self
            .urgent_at
            .is_some_and(|at| now.saturating_duration_since(at) < URGENT_FOR);
        let budget = if is_urgent { URGENT } else { USUAL };
        let is_small = batch.is_small();
        if batch.took > budget && batch.groups > 1 && !is_small {
            // By three tenths, from what it held: a limit far above that would not be felt.
            let held = batch.events.min(self.limit);
            self.limit = (held / 10).saturating_mul(7).max(held / 2).max(1);
        } else if (batch.took < budget / 2 || is_small) && (batch.was_full || !is_urgent) {
            let grown = self.limit.saturating_add((self.limit / 4).max(1));
            self.limit = grown.min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(2);
    const SLOW: Duration = Duration::from_millis(90);

    fn batch(events: usize, took: Duration) -> Measured {
        Measured {
            events,
            bytes: events.saturating_mul(SMALL_BYTES).saturating_add(1),
            groups: events,
            took,
            was_full: true,
        }
    }

    #[test]
    fn slow_batches_shrink_to_one_and_fast_ones_grow_back() {
        let mut load = Load::new(2_000);
        let now = Instant::now();
        let mut limits = vec![load.limit()];
        for _ in 0..40 {
            load.measured(batch(load.limit(), SLOW), now);
            limits.push(load.limit());
        }
        assert!(limits.is_sorted_by(|a, b| a >= b), "{limits:?}");
        assert_eq!(load.limit(), 1);
        for _ in 0..60 {
            load.measured(batch(load.limit(), FAST), now);
        }
        assert_eq!(load.limit(), 2_000);
    }

    #[test]
    fn what_is_in_time_for_the_usual_is_too_slow_for_the_urgent() {
        let now = Instant::now();
        let between = Duration::from_millis(40);
        let mut load = Load::new(1_000);
        load.measured(batch(1_000, between), now);
        assert_eq!(load.limit(), 1_000);
        load.urgent(now);
        load.measured(batch(1_000, between), now);
        assert_eq!(load.limit(), 700);
        load.measured(batch(700, between), now + URGENT_FOR);
        assert_eq!(load.limit(), 700, "nobody urgent has come for a while");
    }

    #[test]
    fn a_slow_disk_makes_no_batch_smaller_than_what_costs_as_much_as_one() {
        let now = Instant::now();
        let mut load = Load::new(2_000);
        load.urgent(now);
        for _ in 0..40 {
            let light = Measured {
                bytes: SMALL_BYTES,
                ..batch(load.limit(), SLOW)
            };
            load.measured(light, now);
        }
        assert!((SMALL / 2..2 * SMALL).contains(&load.limit()), "{load:?}");
        for _ in 0..40 {
            load.measured(batch(load.limit(), SLOW), now);
        }
        assert_eq!(load.limit(), 1, "what is heavy still shrinks");
        for _ in 0..40 {
            let light = Measured {
                bytes: SMALL_BYTES,
                ..batch(load.limit(), SLOW)
            };
            load.measured(light, now);
        }
        assert!(load.limit() >= SMALL / 2, "and what is light grows back");
    }

    #[test]
    fn what_is_too_slow_to_be_stored_at_all_shrinks_most() {
        let now = Instant::now();
        let late = Duration::from_secs(5);
        let mut load = Load::new(2_000);
        let mut limits = Vec::new();
        for _ in 0..4 {
            load.timed_out(batch(load.limit(), late));
            limits.push(load.limit());
        }
        assert_eq!(limits, [500, 125, 31, 7]);
        let mut load = Load::new(2_000);
        load.timed_out(batch(80, late));
        assert_eq!(load.limit(), 20, "from what it held");
        let mut load = Load::new(2_000);
        load.timed_out(Measured {
            groups: 1,
            ..batch(1_000, late)
        });
        let light = Measured {
            bytes: SMALL_BYTES,
            ..batch(SMALL, late)
        };
        load.timed_out(light);
        assert_eq!(
            load.limit(),
            2_000,
            "neither a request nor what costs as much as one is split"
        );
        load.timed_out(batch(2_000, late));
        for _ in 0..10 {
            load.measured(batch(load.limit(), FAST), now);
        }
        assert_eq!(load.limit(), 2_000, "and what is fast again grows back");
    }

    #[test]
    fn one_request_is_no_reason_to_shrink_and_an_empty_queue_none_to_grow() {
        let now = Instant::now();
        let mut load = Load::new(1_000);
        let whole = Measured {
            groups: 1,
            ..batch(2_000, SLOW)
        };
        load.measured(whole, now);
        assert_eq!(load.limit(), 1_000);
        load.urgent(now);
        load.measured(batch(100, SLOW), now);
        assert_eq!(load.limit(), 70);
        let idle = Measured {
            was_full: false,
            ..batch(3, FAST)
        };
        load.measured(idle, now);
        assert_eq!(load.limit(), 70);
        load.measured(idle, now + URGENT_FOR);
        assert_eq!(load.limit(), 87, "without pressure it goes back");
    }
}
