//! When to try again: exponential, with full jitter.
//!
//! # Invariants
//! - A crowd that lost the same thing does not come back in step: every delay is anything from nothing to its ceiling.

use std::time::Duration;

/// Counts failures in a row.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays up to `first`, then up to twice as much each time, never more than `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    /// What the next delay is at most.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// The delay before the next attempt: another failure.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        jitter(ceiling)
    }

    /// Something went well.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Anything from nothing to `ceiling`.
#[must_use]
pub fn jitter(ceiling: Duration) -> Duration {
    ceiling.mul_f64(rand::random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_most_and_delays_lie_anywhere_below() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let mut ceilings = Vec::new();
        for _ in 0..5 {
            let ceiling = backoff.ceiling();
            ceilings.push(ceiling.as_millis());
            assert!(backoff.next_delay() <= ceiling);
        }
        assert_eq!(ceilings, [10, 20, 40, 50, 50]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(10));
        for _ in 0..100 {
            backoff.next_delay();
        }
        let some: Vec<Duration> = (0..100).map(|_| backoff.next_delay()).collect();
        let near = |at: u64| {
            let low = Duration::from_millis(at);
            some.iter()
                .any(|delay| *delay >= low && *delay <= low + Duration::from_millis(10))
        };
        assert!(near(0) && near(20) && near(40), "{some:?}");
    }
}
