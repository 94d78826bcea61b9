//! The watch's own clock: the database's, less all the time in which nobody looked.
//!
//! # Invariants
//! - It never goes faster than the database's clock, and it stands while nobody looks: a subject that had so long left when the
//!   look was lost has as long left when it is taken up again.
//! - A clock that was set, forwards or backwards, is as good as a time in which nobody looked.
//! - A sign of life is never later than now.

use chrono::{DateTime, TimeDelta, Utc};

/// Between two looks it may take so long: longer than the runner pauses, on a machine that has other things to do.
pub const BLINK_MAX: TimeDelta = TimeDelta::milliseconds(1_500);

/// The last time in which nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The look before it.
    pub from: DateTime<Utc>,
    /// The look after it; before `from` where the clock was set back.
    pub to: DateTime<Utc>,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// For how long nobody has looked, all in all.
    pub blind: TimeDelta,
    /// The last time of that kind.
    pub gap: Option<Gap>,
}

impl Clock {
    /// Takes up the look after it was `looked_at`. `blind` and `gap` are those of that look.
    #[must_use]
    pub fn resumed(
        blind: TimeDelta,
        gap: Option<Gap>,
        looked_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Self {
        let away = now.signed_duration_since(looked_at);
        if away.abs() <= BLINK_MAX {
            return Self { now, blind, gap };
        }
        Self {
            now,
            blind: blind.checked_add(&away).unwrap_or(blind),
            gap: Some(Gap {
                from: looked_at,
                to: now,
            }),
        }
    }

    /// What it shows now.
    #[must_use]
    pub fn reading(&self) -> DateTime<Utc> {
        earlier(self.now, self.blind)
    }

    /// What it showed when something was recorded.
    #[must_use]
    pub fn reading_at(&self, recorded_at: DateTime<Utc>) -> DateTime<Utc> {
        let shown = match self.gap {
            // Before it had stood still for the last time.
            Some(Gap { from, to }) if recorded_at < from.min(to) => {
                let before = to.signed_duration_since(from);
                earlier(
                    recorded_at,
                    self.blind.checked_sub(&before).unwrap_or(self.blind),
                )
            }
            Some(Gap { to, .. }) if recorded_at < to => earlier(to, self.blind),
            _ => earlier(recorded_at, self.blind),
        };
        shown.min(self.reading())
    }
}

fn earlier(at: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    at.checked_sub_signed(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_000_000_000_000 + ms).unwrap()
    }

    proptest! {
        /// Looks at any times, with pauses of any length: what is left of a subject's time never shrinks by more than was looked.
        #[test]
        fn only_time_that_was_looked_at_passes(
            pauses in prop::collection::vec(0_i64..100_000, 1..30),
            seen in 0_i64..50,
        ) {
            let mut clock = Clock { now: at(0), blind: TimeDelta::zero(), gap: None };
            let mut looked = 0;
            let mut now = 0;
            let sign = clock.reading_at(at(-seen));
            for pause in pauses {
                now += pause;
                clock = Clock::resumed(clock.blind, clock.gap, clock.now, at(now));
                if pause <= BLINK_MAX.num_milliseconds() {
                    looked += pause;
                }
                let passed = clock.reading().signed_duration_since(sign).num_milliseconds();
                prop_assert_eq!(passed, looked + seen);
            }
        }

        /// Signs keep their order, and none is of the future, wherever the gap lies and whichever way the clock was set.
        #[test]
        fn signs_keep_their_order(
            blind in 0_i64..1_000_000, from in -1_000_000_i64..0, away in 2_000_i64..100_000,
            mut signs in prop::collection::vec(-2_000_000_i64..10_000, 2..20),
        ) {
            let clock = Clock::resumed(TimeDelta::milliseconds(blind), None, at(from), at(from + away));
            signs.sort_unstable();
            let shown: Vec<_> = signs.iter().map(|sign| clock.reading_at(at(*sign))).collect();
            prop_assert!(shown.is_sorted());
            prop_assert!(shown.iter().all(|one| *one <= clock.reading()));
        }
    }

    #[test]
    fn a_clock_that_is_set_moves_nobodys_time() {
        for hours in [-1, 1] {
            let clock = Clock::resumed(
                TimeDelta::zero(),
                None,
                at(0),
                at(0) + TimeDelta::hours(hours),
            );
            assert_eq!(clock.reading(), at(0));
            assert!(clock.reading_at(at(-10)) <= at(0));
        }
    }
}
