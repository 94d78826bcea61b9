//! How a consumer stands, as far as this server knows.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::ConsumerMetrics;

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    is_active: AtomicBool,
    is_paused: AtomicBool,
    lag_events: AtomicI64,
    /// When it took a step here, or was seen to be another server's.
    seen: Mutex<Instant>,
}

impl Standing {
    /// Of a consumer that is not active here yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(Inner {
            name,
            is_active: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            lag_events: AtomicI64::new(0),
            seen: Mutex::new(Instant::now()),
        }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Whether this server runs it: it has its turn, and takes steps.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.is_active.load(Ordering::Relaxed)
    }

    /// Places that were given out and that it has not passed; none where another server runs it.
    #[must_use]
    pub fn lag_events(&self) -> Option<i64> {
        self.is_active()
            .then(|| self.0.lag_events.load(Ordering::Relaxed))
    }

    /// Whether it takes no steps, wherever it runs.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.is_paused.load(Ordering::Relaxed)
    }

    /// How long nobody has been seen to run it, as far as this server can see.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.elapsed()
    }

    /// It was seen to run, here or elsewhere.
    pub(super) fn set_seen(&self) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Instant::now();
    }

    /// It takes steps, or none.
    pub(super) fn set_paused(&self, is_paused: bool) {
        self.0.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// It runs here, or no longer.
    pub(super) fn set_active(&self, is_active: bool) {
        self.0.is_active.store(is_active, Ordering::Relaxed);
    }

    /// So many places lie before it.
    pub(super) fn set_lag(&self, events: i64) {
        self.0.lag_events.store(events.max(0), Ordering::Relaxed);
    }

    /// For a scrape.
    pub fn measure(&self, metrics: &ConsumerMetrics) {
        let lag = self.lag_events().unwrap_or_default();
        let is = (self.is_active(), self.is_paused());
        metrics.set(self.name(), is, lag);
    }
}
