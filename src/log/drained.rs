//! How fast the queue drains, and when there will be room for whoever is refused now.
//!
//! # Invariants
//! - Measured only while more waits than goes: an idle queue says nothing of how fast it could be.
//! - Never below a second nor above a minute, and never less for more that is in the way.
//! - Those who are refused together are told different times, over as long as it takes to store as many.

use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::event::limits::{RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use crate::event::{ByPriority, Priority};

/// What was measured so long ago counts for a third.
const MEMORY_S: f64 = 10.0;
/// Less is not enough to tell a rate.
const BUSY_MIN_S: f64 = 0.05;
/// Those that were refused within about so long come back together.
const CROWD_S: f64 = 1.0;

/// What has to leave before there is room for a group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct InTheWay {
    /// Groups of whichever class.
    pub(super) groups: usize,
    /// Bytes of whichever class.
    pub(super) bytes: usize,
    /// Groups of its own class.
    pub(super) of_class: usize,
    /// Groups of its own tenant, of which so many of all that wait are.
    pub(super) of_tenant: usize,
    /// What part of all that waits is the tenant's.
    pub(super) share: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Drained {
    groups: ByPriority<f64>,
    bytes: f64,
    busy_s: f64,
    refused: f64,
    /// As of when the sums above are.
    at: Instant,
    /// The last batch was taken then, and did not empty the queue.
    since: Option<Instant>,
}

impl Drained {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            groups: ByPriority::default(),
            bytes: 0.0,
            busy_s: 0.0,
            refused: 0.0,
            at: now,
            since: None,
        }
    }

    /// A batch was taken. `is_more`: others still wait.
    pub(super) fn took(
        &mut self,
        groups: &ByPriority<u32>,
        bytes: usize,
        is_more: bool,
        now: Instant,
    ) {
        self.age(now);
        if let Some(since) = self.since {
            self.busy_s += now.saturating_duration_since(since).as_secs_f64();
            self.bytes += float(bytes);
            for priority in Priority::ALL {
                *self.groups.of_mut(priority) += f64::from(*groups.of(priority));
            }
        }
        self.since = is_more.then_some(now);
    }

    /// Nothing leaves from now on: that says nothing of how fast it could.
    pub(super) const fn pause(&mut self) {
        self.since = None;
    }

    /// When whoever is refused now is to come back. `waited`: how long those before it have, which counts where no rate is
    /// known.
    pub(super) fn retry_after(
        &mut self,
        class: Priority,
        in_the_way: &InTheWay,
        waited: Duration,
        now: Instant,
    ) -> Duration {
        self.age(now);
        self.refused += 1.0;
        let least = self.seconds(class, in_the_way, waited, now);
        let crowd = self.refused / self.rate(self.all(), now).unwrap_or(f64::INFINITY);
        let spread = crowd.max(least / 4.0).max(1.0);
        bounded(least + spread * rand::rng().random_range(0.0..1.0))
    }

    /// Seconds until what is in the way has left.
    fn seconds(
        &self,
        class: Priority,
        in_the_way: &InTheWay,
        waited: Duration,
        now: Instant,
    ) -> f64 {
        let takes = |what: usize, sum: f64| match self.rate(sum, now) {
            _ if what == 0 => 0.0,
            Some(rate) => float(what) / rate,
            None => waited.as_secs_f64(),
        };
        let all = self.all();
        [
            takes(in_the_way.groups, all),
            takes(in_the_way.bytes, self.bytes),
            takes(in_the_way.of_class, *self.groups.of(class)),
            takes(in_the_way.of_tenant, all * in_the_way.share),
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }

    fn all(&self) -> f64 {
        Priority::ALL.iter().map(|one| self.groups.of(*one)).sum()
    }

    /// So much of which a sum is kept leaves in a second; none if that is not known. What has not moved since the last batch
    /// slows it down.
    fn rate(&self, sum: f64, now: Instant) -> Option<f64> {
        let since = self.since.map(|at| now.saturating_duration_since(at));
        let busy_s = self.busy_s + since.unwrap_or_default().as_secs_f64();
        (busy_s >= BUSY_MIN_S && self.busy_s > 0.0).then(|| sum / busy_s)
    }

    /// What was long ago counts for less.
    fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let kept = (-passed / MEMORY_S).exp();
        self.busy_s *= kept;
        self.bytes *= kept;
        self.refused *= (-passed / CROWD_S).exp();
        for priority in Priority::ALL {
            *self.groups.of_mut(priority) *= kept;
        }
    }
}

fn bounded(seconds: f64) -> Duration {
    let most = RETRY_AFTER_MAX.as_secs_f64();
    // Also what is not a number.
    let seconds = if seconds < most { seconds } else { most };
    Duration::from_secs_f64(seconds.max(RETRY_AFTER_MIN.as_secs_f64()))
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One that has taken so many groups a second for five seconds, of a queue that never was empty.
    fn drained(per_s: u32) -> (Drained, Instant) {
        let mut now = Instant::now();
        let mut drained = Drained::new(now);
        let each = ByPriority::new(|one| if one == Priority::Low { 0 } else { per_s / 30 });
        for _ in 0..50 {
            now += Duration::from_millis(100);
            drained.took(&each, 3_000, true, now);
        }
        (drained, now)
    }

    fn behind(groups: usize) -> InTheWay {
        InTheWay {
            groups,
            ..InTheWay::default()
        }
    }

    fn seconds(drained: &Drained, in_the_way: &InTheWay, now: Instant) -> f64 {
        drained.seconds(Priority::Normal, in_the_way, Duration::ZERO, now)
    }

    #[test]
    fn what_is_in_the_way_takes_as_long_as_the_queue_needs_for_it() {
        let (drained, now) = drained(300);
        let is_about = |took: f64, wanted: f64| (took / wanted - 1.0).abs() < 0.05;
        assert!(is_about(seconds(&drained, &behind(3_000), now), 10.0));
        let bytes = InTheWay {
            bytes: 60_000,
            ..InTheWay::default()
        };
        assert!(is_about(seconds(&drained, &bytes, now), 2.0));
        let class = InTheWay {
            of_class: 1_000,
            ..behind(300)
        };
        assert!(
            is_about(seconds(&drained, &class, now), 10.0),
            "a third goes"
        );
        let tenant = InTheWay {
            of_tenant: 300,
            share: 0.25,
            ..InTheWay::default()
        };
        assert!(is_about(seconds(&drained, &tenant, now), 4.0));
        // Nothing has left for as long again.
        let later = now + Duration::from_secs(5);
        assert!(seconds(&drained, &behind(3_000), later) > 15.0);
        let low = drained.seconds(Priority::Low, &class, Duration::ZERO, now);
        assert_eq!(bounded(low), RETRY_AFTER_MAX, "none of them has ever left");
    }

    #[test]
    fn without_a_rate_the_wait_of_those_before_counts() {
        let now = Instant::now();
        let mut drained = Drained::new(now);
        let each = ByPriority::new(|_| 1_000);
        // The queue was empty each time: this is what came, not what could go.
        for at in 1..100 {
            drained.took(&each, 9, false, now + Duration::from_millis(at));
        }
        let waited = Duration::from_secs(7);
        let took = drained.seconds(Priority::Normal, &behind(9), waited, now);
        assert!((took - 7.0).abs() < 1e-9, "{took}");
    }

    #[test]
    fn a_crowd_comes_back_over_as_long_as_it_takes_to_store_it() {
        let (mut drained, now) = drained(300);
        let waits: Vec<f64> = (0..3_000)
            .map(|_| drained.retry_after(Priority::Normal, &behind(30), Duration::ZERO, now))
            .map(|wait| wait.as_secs_f64())
            .collect();
        let last = &waits[1_500..];
        for second in 1..5 {
            let from = f64::from(second);
            let within = last
                .iter()
                .filter(|wait| (from..from + 1.0).contains(*wait));
            let count = within.count();
            assert!((100..500).contains(&count), "{second}: {count}");
        }
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_more_in_the_way_is_never_less(
            per_s in 0..100_000_u32,
            groups in 0..10_000_usize,
            bytes in 0..100_000_000_usize,
            more in 0..10_000_usize,
            idle_ms in 0..100_000_u64,
        ) {
            let (mut drained, now) = drained(per_s);
            let now = now + Duration::from_millis(idle_ms);
            let less = InTheWay { bytes, ..behind(groups) };
            let more = InTheWay { bytes, ..behind(groups + more) };
            prop_assert!(seconds(&drained, &less, now) <= seconds(&drained, &more, now));
            let wait = drained.retry_after(Priority::Low, &more, Duration::MAX, now);
            prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&wait), "{wait:?}");
        }
    }
}
