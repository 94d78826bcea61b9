//! When to try again: exponential, with full jitter, and never before the server's `Retry-After`.
//!
//! # Invariants
//! - This is the only place of the client that lets time pass.
//! - A crowd of clients that lost the same server does not come back in step.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{self, jitter};

/// Ceiling of the first delay.
const FIRST: Duration = Duration::from_millis(500);
/// Ceiling of every delay.
const CEILING: Duration = Duration::from_secs(30);
/// A server that wishes for a longer pause is asked again after this.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Backoff(backoff::Backoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(backoff::Backoff::new(FIRST, CEILING))
    }
}

impl Backoff {
    /// The delay before the next attempt.
    pub(super) fn delay(&mut self, retry_after: Option<Duration>) -> Duration {
        let ceiling = self.0.ceiling();
        let delay = self.0.next_delay();
        match retry_after {
            None => delay,
            Some(least) => {
                let least = least.min(RETRY_AFTER_MAX);
                least.saturating_add(jitter(ceiling.min(least.max(FIRST))))
            }
        }
    }

    /// Something went well.
    pub(super) const fn reset(&mut self) {
        self.0.reset();
    }
}

/// Lets `delay` pass.
pub async fn pause(delay: Duration) {
    pause_until(Instant::now() + delay).await;
}

/// Waits for a moment: a backoff's end, or the due time of something that is paced on purpose.
pub async fn pause_until(moment: Instant) {
    tokio::time::sleep_until(moment).await;
}

/// Reads `Retry-After`. Only its seconds form: a date would need a clock that agrees with the server's.
pub(super) fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_ceiling_and_start_over() {
        let mut backoff = Backoff::default();
        for failures in 0..40_u32 {
            let ceiling = CEILING.min(FIRST * 2_u32.saturating_pow(failures));
            assert!(backoff.delay(None) <= ceiling);
        }
        backoff.reset();
        assert!(backoff.delay(None) <= FIRST);
    }

    #[test]
    fn jitter_is_full() {
        let delays: Vec<Duration> = (0..400).map(|_| jitter(FIRST)).collect();
        assert!(delays.iter().any(|d| *d < FIRST / 4));
        assert!(delays.iter().any(|d| *d > FIRST * 3 / 4));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_a_lower_bound() {
        let mut backoff = Backoff::default();
        for least in [0, 1, 7, 60] {
            let least = Duration::from_secs(least);
            let start = Instant::now();
            pause(backoff.delay(Some(least))).await;
            assert!(start.elapsed() >= least);
            assert!(start.elapsed() <= least * 2 + FIRST);
        }
        assert!(backoff.delay(Some(Duration::MAX)) <= RETRY_AFTER_MAX + CEILING);
    }
}
