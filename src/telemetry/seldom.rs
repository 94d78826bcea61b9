//! What happens to many requests at once is logged once a second, with how many there were.
//!
//! # Invariants
//! - Whoever is told to log is told of all that were not logged since, so that the sum is right.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one kind.
const REST: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Debug)]
pub struct Seldom(Mutex<State>);

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    count: u64,
}

impl Seldom {
    /// None was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            count: 0,
        }))
    }

    /// It has happened again: how often since the last line, this time included, if one is due.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count = state.count.saturating_add(1);
        let rested = state
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= REST);
        rested.then(|| {
            state.last = Some(now);
            std::mem::take(&mut state.count)
        })
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_together() {
        let (seldom, now) = (Seldom::new(), Instant::now());
        assert_eq!(seldom.due_at(now), Some(1));
        for _ in 0..999 {
            assert_eq!(seldom.due_at(now + REST / 2), None);
        }
        assert_eq!(seldom.due_at(now + REST), Some(1_000));
        assert_eq!(seldom.due_at(now + REST), None);
    }
}
