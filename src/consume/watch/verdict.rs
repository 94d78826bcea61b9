//! Whether a subject has stalled: from what is known of it, and nothing else.
//!
//! # Invariants
//! - A spell begins and ends once: who has stalled does not stall again before it has recovered.
//! - Nobody recovers without a sign of life that is new, nor by one that is as old as silence may be: it would stall again at once.
//! - All times are the watch's own (`clock`).

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::Seq;

/// What is known of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// It has stalled.
    pub is_stalled: bool,
    /// Its last sign of life.
    pub last_seen: Seq,
    /// The last sign that ended no silence.
    pub silent: Option<Seq>,
    /// Until when it need give none.
    pub due: DateTime<Utc>,
    /// A sign that is committed and that readers do not have yet.
    pub newer: Option<DateTime<Utc>>,
    /// How long it may be silent.
    pub within: TimeDelta,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Stays,
    /// It has been silent for too long: that is said.
    Stalls,
    /// It is heard of again: that is said.
    Recovers,
    /// Its last sign came too late: the spell goes on, and nothing is said.
    GoesOn,
    /// A sign is on its way: until this nothing is said.
    Later(DateTime<Utc>),
}

impl Verdict {
    /// The word in `sql/functions/judge_watched.sql`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Stalls => "stalls",
            Self::Recovers => "recovers",
            Self::GoesOn => "goes_on",
            Self::Later(_) => "later",
        }
    }
}

/// Judges a subject of which everything up to the watermark is known.
#[must_use]
pub fn judge(known: &Known, now: DateTime<Utc>) -> Verdict {
    let is_silent = now > known.due;
    if known.is_stalled {
        let has_sign = known.silent.is_none_or(|silent| known.last_seen > silent);
        return match (has_sign, is_silent) {
            (true, false) => Verdict::Recovers,
            (true, true) => Verdict::GoesOn,
            (false, _) => Verdict::Stays,
        };
    }
    if !is_silent {
        return Verdict::Stays;
    }
    let newer = known
        .newer
        .and_then(|seen| seen.checked_add_signed(known.within));
    match newer.filter(|due| *due >= now) {
        Some(due) => Verdict::Later(due),
        None => Verdict::Stalls,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_000_000_000_000 + ms).unwrap()
    }

    /// What `judge_watched()` does with a verdict.
    fn apply(known: &mut Known, verdict: Verdict) {
        match verdict {
            Verdict::Stays => {}
            Verdict::Stalls => {
                known.is_stalled = true;
                known.silent = Some(known.last_seen);
            }
            Verdict::Recovers => known.is_stalled = false,
            Verdict::GoesOn => known.silent = Some(known.last_seen),
            Verdict::Later(due) => known.due = due,
        }
    }

    proptest! {
        /// Whatever signs come and whenever it is looked, silences and recoveries alternate, each recovery follows a sign, and who
        /// gave one within its time is never said to have stalled.
        #[test]
        fn spells_begin_and_end_once(
            within in 1_i64..5_000,
            acts in prop::collection::vec((1_i64..4_000, prop::bool::ANY, 0_i64..6_000), 1..80),
        ) {
            let within = TimeDelta::milliseconds(within);
            let mut known = Known {
                is_stalled: false, last_seen: 1, silent: None, due: at(0) + within, newer: None, within,
            };
            let (mut now, mut last, mut said, mut has_sign) = (0, 0, false, false);
            for (pause, is_sign, age) in acts {
                now += pause;
                if is_sign {
                    // Recorded a while ago, read only now.
                    last = last.max(now - age);
                    known.last_seen += 1;
                    known.due = known.due.max(at(now - age) + within);
                    has_sign = true;
                }
                let verdict = judge(&known, at(now));
                match verdict {
                    Verdict::Stalls => {
                        prop_assert!(!said);
                        prop_assert!(at(now) > at(last) + within);
                        (said, has_sign) = (true, false);
                    }
                    Verdict::Recovers => {
                        prop_assert!(said && has_sign);
                        prop_assert!(at(now) <= at(last) + within);
                        said = false;
                    }
                    _ => {}
                }
                apply(&mut known, verdict);
                prop_assert_eq!(known.is_stalled, said);
                prop_assert!(
                    !matches!(judge(&known, at(now)), Verdict::Stalls | Verdict::Recovers),
                    "looked at again, nothing is said"
                );
            }
        }

        /// A committed sign that readers do not have yet holds the alarm back, as long as it is young enough.
        #[test]
        fn a_sign_on_its_way_counts(late in 1_i64..10_000, age in 0_i64..10_000, within in 1_i64..5_000) {
            let within = TimeDelta::milliseconds(within);
            let known = Known {
                is_stalled: false, last_seen: 1, silent: None, due: at(-late), newer: Some(at(-age)), within,
            };
            let is_young = at(-age) + within >= at(0);
            let verdict = judge(&known, at(0));
            prop_assert_eq!(verdict == Verdict::Later(at(-age) + within), is_young);
            prop_assert_eq!(verdict == Verdict::Stalls, !is_young);
        }
    }
}
