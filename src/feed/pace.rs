//! How often a reader may ask for history, as whoever lets readers in decides.
//!
//! # Invariants
//! - Asked before each read of history, and never by a reader that the window can answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

/// Says when history may be read.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Lets one read through.
    ///
    /// # Errors
    /// How long it has to wait.
    fn admit(&self) -> Result<(), Duration>;
}

/// A reader's pace; without an admission it reads as often as it likes.
#[derive(Debug, Clone, Default)]
pub struct Pace(Option<Arc<dyn Admission>>);

impl Pace {
    /// As `admission` says.
    #[must_use]
    pub fn new(admission: Arc<dyn Admission>) -> Self {
        Self(Some(admission))
    }

    /// See [`Admission::admit`].
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn admit(&self) -> Result<(), Duration> {
        self.0.as_ref().map_or(Ok(()), |one| one.admit())
    }
}

/// Longest rest: whoever waits for a rate that many share looks now and then.
const REST_MAX: Duration = Duration::from_secs(2);

/// The rests of a reader that asks too often: each twice as long as the one before, so that a crowd that shares a rate
/// does not ask in vain all the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rest(Duration);

impl Rest {
    /// How long to rest before asking again, at least `wait`.
    pub fn again(&mut self, wait: Duration) -> Duration {
        let least = self.0.saturating_mul(2).min(REST_MAX);
        self.0 = least.max(wait);
        self.0.mul_f64(rand::rng().random_range(1.0..1.25))
    }

    /// It was let through.
    pub const fn end(&mut self) {
        self.0 = Duration::ZERO;
    }
}
