//! How long to wait between attempts. The one place of this module that waits for time to pass.
//!
//! # Invariants
//! - The first attempt after a long healthy run waits for nothing; no delay exceeds [`DELAY_MAX`].

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A run that lasted this long was healthy, whatever ended it.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// A delay that doubles with each attempt.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The delay before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).clamp(DELAY_MIN, DELAY_MAX);
        delay
    }

    /// Starts over if what was started last ran for long.
    pub(super) fn ran_for(&mut self, duration: Duration) {
        if duration >= HEALTHY_AFTER {
            self.next = Duration::ZERO;
        }
    }
}

/// Waits. For pauses between two looks at another process, which can't be awaited.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's state has no event to await"
)]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_and_start_over_after_a_healthy_run() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(), Duration::ZERO);
        assert_eq!(backoff.next(), DELAY_MIN);
        assert_eq!(backoff.next(), DELAY_MIN * 2);
        for _ in 0..20 {
            backoff.next();
        }
        assert_eq!(backoff.next(), DELAY_MAX);
        backoff.ran_for(Duration::from_secs(1));
        assert_eq!(backoff.next(), DELAY_MAX);
        backoff.ran_for(HEALTHY_AFTER);
        assert_eq!(backoff.next(), Duration::ZERO);
    }
}
