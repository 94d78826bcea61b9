//! A circuit breaker around what is written to the database: while it is away, nobody waits for it.
//!
//! # Invariants
//! - Closed: all pass. After so many failures in a row it opens.
//! - Open: nobody passes, until the recovery time is over or somebody else has heard of the database.
//! - Half-open: a few pass as probes. The first success closes it, the first failure opens it for another recovery time.
//! - What a probe that was given up has found out is not known: its place is free again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

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
}

/// See the module. Cheap to clone; clones are one breaker.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: BreakerSettings,
    circuit: Mutex<Circuit>,
    state: watch::Sender<BreakerState>,
    shortages: Shortages,
    metrics: Metrics,
}

#[derive(Debug)]
enum Circuit {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probes: u32 },
}

impl Circuit {
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
            circuit: Mutex::new(Circuit::Closed { failures: 0 }),
            state: watch::channel(BreakerState::Closed).0,
            shortages,
            metrics,
        }))
    }

    /// Lets a batch pass. What came of it is told with [`Pass::end`].
    ///
    /// # Errors
    /// If it is open, or as many probes as may are under way.
    pub fn pass(&self, now: Instant) -> Result<Pass, Tripped> {
        let mut circuit = self.circuit();
        let is_probe = match &mut *circuit {
            Circuit::Closed { .. } => false,
            Circuit::Open { until } if now < *until => {
                return Err(self.tripped(until.saturating_duration_since(now)));
            }
            Circuit::Open { .. } => {
                *circuit = Circuit::HalfOpen { probes: 1 };
                true
            }
            Circuit::HalfOpen { probes } if *probes >= self.0.settings.probes.max(1) => {
                return Err(self.tripped(Duration::from_secs(1)));
            }
            Circuit::HalfOpen { probes } => {
                *probes = probes.saturating_add(1);
                true
            }
        };
        self.tell(&circuit);
        Ok(Pass {
            breaker: self.clone(),
            is_probe,
            has_ended: false,
        })
    }

    /// How long nobody passes from now on, as far as is known.
    #[must_use]
    pub fn open_for(&self, now: Instant) -> Option<Tripped> {
        match *self.circuit() {
            Circuit::Open { until } if now < until => {
                Some(self.tripped(until.saturating_duration_since(now)))
            }
            _ => None,
        }
    }

    /// What the database has run out of, as those say who connect and write.
    #[must_use]
    pub fn shortages(&self) -> &Shortages {
        &self.0.shortages
    }

    fn tripped(&self, retry_after: Duration) -> Tripped {
        Tripped {
            retry_after,
            lacking: self.0.shortages.gravest(),
        }
    }

    /// Waits until somebody may pass, as far as is known.
    pub async fn ready(&self) {
        let mut changes = self.states();
        loop {
            changes.borrow_and_update();
            let until = match *self.circuit() {
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

    /// Somebody who does not pass here has not reached the database.
    pub fn missed(&self) {
        self.ended(false, Some(false), Instant::now());
    }

    /// Somebody who does not pass here has reached the database again: it is worth a try.
    pub fn heard(&self) {
        let mut circuit = self.circuit();
        match &mut *circuit {
            // Failures count that come in a row.
            Circuit::Closed { failures } => *failures = 0,
            Circuit::Open { .. } => {
                *circuit = Circuit::HalfOpen { probes: 0 };
                self.tell(&circuit);
            }
            Circuit::HalfOpen { .. } => {}
        }
    }

    /// Closes it: an administrator knows better.
    pub fn reset(&self) {
        let mut circuit = self.circuit();
        *circuit = Circuit::Closed { failures: 0 };
        self.tell(&circuit);
    }

    /// Its state now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.circuit().state()
    }

    /// Its states as they come.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<BreakerState> {
        self.0.state.subscribe()
    }

    fn ended(&self, is_probe: bool, outcome: Option<bool>, now: Instant) {
        let mut circuit = self.circuit();
        match (&mut *circuit, outcome) {
            (Circuit::Closed { failures }, Some(true)) => *failures = 0,
            (Circuit::Closed { failures }, Some(false)) => {
                *failures = failures.saturating_add(1);
                if *failures >= self.0.settings.failures.max(1) {
                    *circuit = self.opened(now);
                }
            }
            // Whoever passed before it opened may be late with good news as well as with bad.
            (Circuit::HalfOpen { .. }, Some(true)) => *circuit = Circuit::Closed { failures: 0 },
            (Circuit::HalfOpen { .. }, Some(false)) if is_probe => *circuit = self.opened(now),
            (Circuit::HalfOpen { probes }, None) if is_probe => {
                *probes = probes.saturating_sub(1);
                // Its place is free: not a change of state, but of interest to who waits for one.
                self.0.state.send_modify(|_| ());
            }
            (Circuit::Open { .. }, Some(true)) => *circuit = Circuit::HalfOpen { probes: 0 },
            (Circuit::Closed { .. }, None)
            | (Circuit::HalfOpen { .. } | Circuit::Open { .. }, _) => {}
        }
        self.tell(&circuit);
    }

    fn opened(&self, now: Instant) -> Circuit {
        self.0.metrics.database.breaker_opened.inc();
        let until = now.checked_add(self.0.settings.recovery);
        Circuit::Open {
            until: until.unwrap_or(now),
        }
    }

    /// Under the lock, so that states are told in their order.
    fn tell(&self, circuit: &Circuit) {
        let now = circuit.state();
        self.0
            .state
            .send_if_modified(|last| std::mem::replace(last, now) != now);
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.0
            .circuit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    /// Says whether the database was there for it.
    pub fn end(mut self, was_there: bool, now: Instant) {
        self.has_ended = true;
        self.breaker.ended(self.is_probe, Some(was_there), now);
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
