//! A circuit breaker around what is written to the database: while that fails, nobody waits for it.
//!
//! # Invariants
//! - Closed: all pass. After so many failures in a row it opens.
//! - Open: nobody passes, until the recovery time is over or a database that was not heard of is heard of again. That one which
//!   takes nothing is read all the while says nothing new.
//! - Half-open: a few pass as probes. The first success closes it, the first failure opens it for another recovery time.
//! - What a probe that was given up has found out is not known: its place is free again.
//! - Why it is not closed is as true as is known: whoever reads the log all the time has the last word on whether the database is
//!   there at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::trouble::{Finding, Trouble};
use crate::pg::{Resource, Shortages};
use crate::telemetry::Metrics;

/// When it opens, and how it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row after which it opens; at least one.
    pub failures: u32,
    /// How long it stays open if nobody hears of the database.
    pub recovery: Duration,
    /// Batches at once that may try while it is half-open; at least one.
    pub probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            recovery: Duration::from_secs(30),
            probes: 1,
        }
    }
}

/// Whether it lets anybody pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All pass.
    Closed,
    /// Nobody passes.
    Open,
    /// Probes pass.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in the status and on metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// It is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database has failed again and again: it is left alone for {} s", .retry_after.as_secs())]
pub struct Tripped {
    /// After which it may be tried again.
    pub retry_after: Duration,
    /// What the database has run out of, if it has said so.
    pub lacking: Option<Resource>,
    /// Whether it is there at all.
    pub trouble: Trouble,
}

/// See the module. Cheap to clone; clones are one breaker.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: BreakerSettings,
    known: Mutex<Known>,
    state: watch::Sender<BreakerState>,
    trouble: watch::Sender<Option<Trouble>>,
    shortages: Shortages,
    metrics: Metrics,
}

#[derive(Debug)]
struct Known {
    circuit: Circuit,
    /// Whether whoever reads the log all the time has reached the database the last time.
    is_heard: bool,
    /// None while it is closed, and while it is half-open because the database is heard of again.
    trouble: Option<Trouble>,
}

#[derive(Debug)]
enum Circuit {
    Closed {
        /// Of batches, in a row.
        failures: u32,
        /// Of whoever reads the log, in a row.
        misses: u32,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        probes: u32,
    },
}

impl Circuit {
    const CLOSED: Self = Self::Closed {
        failures: 0,
        misses: 0,
    };

    const fn state(&self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

impl Breaker {
    /// A closed one. `shortages` may say why it opens.
    #[must_use]
    pub fn new(settings: BreakerSettings, shortages: Shortages, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            settings,
            known: Mutex::new(Known {
                circuit: Circuit::CLOSED,
                is_heard: true,
                trouble: None,
            }),
            state: watch::channel(BreakerState::Closed).0,
            trouble: watch::channel(None).0,
            shortages,
            metrics,
        }))
    }

    /// Lets a batch pass. What came of it is told with [`Pass::end`].
    ///
    /// # Errors
    /// If it is open, or as many probes as may are under way.
    pub fn pass(&self, now: Instant) -> Result<Pass, Tripped> {
        let mut known = self.known();
        let is_probe = match &mut known.circuit {
            Circuit::Closed { .. } => false,
            Circuit::Open { until } if now < *until => {
                let left = until.saturating_duration_since(now);
                return Err(self.tripped(&known, left));
            }
            Circuit::Open { .. } => {
                known.circuit = Circuit::HalfOpen { probes: 1 };
                true
            }
            Circuit::HalfOpen { probes } if *probes >= self.0.settings.probes.max(1) => {
                return Err(self.tripped(&known, Duration::from_secs(1)));
            }
            Circuit::HalfOpen { probes } => {
                *probes = probes.saturating_add(1);
                true
            }
        };
        self.tell(&known);
        Ok(Pass {
            breaker: self.clone(),
            is_probe,
            has_ended: false,
        })
    }

    /// How long nobody passes from now on, as far as is known.
    #[must_use]
    pub fn open_for(&self, now: Instant) -> Option<Tripped> {
        let known = self.known();
        match known.circuit {
            Circuit::Open { until } if now < until => {
                Some(self.tripped(&known, until.saturating_duration_since(now)))
            }
            _ => None,
        }
    }

    /// What whoever does not pass is told, if there is nothing better to say of when it may be tried again.
    pub(super) fn turned_away(&self, retry_after: Duration) -> Tripped {
        let now = self.open_for(Instant::now());
        now.unwrap_or_else(|| self.tripped(&self.known(), retry_after))
    }

    /// What the database has run out of, as those say who connect and write.
    #[must_use]
    pub fn shortages(&self) -> &Shortages {
        &self.0.shortages
    }

    fn tripped(&self, known: &Known, retry_after: Duration) -> Tripped {
        Tripped {
            retry_after,
            lacking: self.0.shortages.gravest(),
            trouble: known.trouble.unwrap_or(Trouble::WritesFail),
        }
    }

    /// Waits until somebody may pass, as far as is known.
    pub async fn ready(&self) {
        let mut changes = self.states();
        loop {
            changes.borrow_and_update();
            let until = match self.known().circuit {
                Circuit::Closed { .. } => return,
                Circuit::HalfOpen { probes } if probes < self.0.settings.probes.max(1) => return,
                Circuit::HalfOpen { .. } => None,
                Circuit::Open { until } => Some(until),
            };
            match until {
                Some(until) if until <= Instant::now() => return,
                Some(until) => {
                    let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
                }
                None => {
                    let _ = changes.changed().await;
                }
            }
        }
    }

    /// Whoever reads the log all the time has not reached the database.
    pub fn missed(&self) {
        let mut known = self.known();
        known.is_heard = false;
        if known.trouble.is_some() {
            known.trouble = Some(Trouble::Away);
        }
        if let Circuit::Closed { misses, .. } = &mut known.circuit {
            *misses = misses.saturating_add(1);
        }
        self.open_if_due(&mut known, Finding::Away, Instant::now());
        self.tell(&known);
    }

    /// Whoever reads the log all the time has reached the database. If that is news, it is worth a try.
    pub fn heard(&self) {
        let mut known = self.known();
        let is_news = !std::mem::replace(&mut known.is_heard, true);
        match &mut known.circuit {
            // Failures count that come in a row: those of batches are ended by batches.
            Circuit::Closed { misses, .. } => *misses = 0,
            Circuit::Open { .. } if is_news => {
                known.circuit = Circuit::HalfOpen { probes: 0 };
                known.trouble = None;
            }
            Circuit::HalfOpen { .. } if is_news => known.trouble = None,
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => {
                // What batches took for its absence it was not.
                known.trouble = known.trouble.map(|_| Trouble::WritesFail);
            }
        }
        self.tell(&known);
    }

    /// Closes it: an administrator knows better.
    pub fn reset(&self) {
        let mut known = self.known();
        (known.circuit, known.trouble) = (Circuit::CLOSED, None);
        self.tell(&known);
    }

    /// Its state now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.known().circuit.state()
    }

    /// Its states as they come.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<BreakerState> {
        self.0.state.subscribe()
    }

    /// What is the matter now, if it is known that something is.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.known().trouble
    }

    /// What is the matter, as it comes and goes.
    #[must_use]
    pub fn troubles(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.trouble.subscribe()
    }

    fn ended(&self, is_probe: bool, finding: Option<Finding>, now: Instant) {
        let mut known = self.known();
        match (&mut known.circuit, finding) {
            // Whoever passed before it opened may be late with good news as well as with bad.
            (Circuit::Closed { .. } | Circuit::HalfOpen { .. }, Some(Finding::There)) => {
                (known.circuit, known.trouble) = (Circuit::CLOSED, None);
            }
            (Circuit::Open { .. }, Some(Finding::There)) => {
                known.circuit = Circuit::HalfOpen { probes: 0 };
            }
            (Circuit::Closed { failures, .. }, Some(finding)) => {
                *failures = failures.saturating_add(1);
                self.open_if_due(&mut known, finding, now);
            }
            (Circuit::HalfOpen { .. }, Some(finding)) if is_probe => {
                self.open(&mut known, finding, now);
            }
            (Circuit::HalfOpen { probes }, None) if is_probe => {
                *probes = probes.saturating_sub(1);
                // Its place is free: not a change of state, but of interest to who waits for one.
                self.0.state.send_modify(|_| ());
            }
            (Circuit::Closed { .. }, None)
            | (Circuit::HalfOpen { .. } | Circuit::Open { .. }, _) => {}
        }
        self.tell(&known);
    }

    fn open_if_due(&self, known: &mut Known, finding: Finding, now: Instant) {
        if let Circuit::Closed { failures, misses } = known.circuit
            && failures.saturating_add(misses) >= self.0.settings.failures.max(1)
        {
            self.open(known, finding, now);
        }
    }

    fn open(&self, known: &mut Known, finding: Finding, now: Instant) {
        self.0.metrics.database.breaker_opened.inc();
        let until = now.checked_add(self.0.settings.recovery);
        known.circuit = Circuit::Open {
            until: until.unwrap_or(now),
        };
        // Who reads the log learns of a line that broke a moment later than who writes; and says so if it is none.
        let is_away = !known.is_heard || finding == Finding::Away;
        let first = if is_away {
            Trouble::Away
        } else {
            Trouble::WritesFail
        };
        known.trouble.get_or_insert(first);
    }

    /// Under the lock, so that all is told in its order.
    fn tell(&self, known: &Known) {
        let state = known.circuit.state();
        self.0
            .state
            .send_if_modified(|last| std::mem::replace(last, state) != state);
        self.0
            .trouble
            .send_if_modified(|last| std::mem::replace(last, known.trouble) != known.trouble);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch that was let pass.
#[derive(Debug)]
pub struct Pass {
    breaker: Breaker,
    is_probe: bool,
    has_ended: bool,
}

impl Pass {
    /// Says what it has found out.
    pub fn end(mut self, finding: Finding, now: Instant) {
        self.has_ended = true;
        self.breaker.ended(self.is_probe, Some(finding), now);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.has_ended {
            self.breaker.ended(self.is_probe, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
