//! What the database has run out of, as it says itself: the disk, memory, connections.
//!
//! # Invariants
//! - It stands until the database has done what it could not do before, or has not said so again for some time.
//! - No more is kept than what the operator is told: which it is, what was said, and when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What was said so long ago may have passed unnoticed: nobody has tried since.
const STALE_AFTER: Duration = Duration::from_mins(10);

/// Of what there is not enough; what stops more comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Room on the disk.
    Disk,
    /// Memory, or locks.
    Memory,
    /// Connections.
    Connections,
}

impl Resource {
    /// What an error of the database says of it, if it is about that.
    #[must_use]
    pub fn lacking(error: &Error) -> Option<Self> {
        match error.code().map(SqlState::code)? {
            "53100" => Some(Self::Disk),
            "53200" => Some(Self::Memory),
            "53300" => Some(Self::Connections),
            _ => None,
        }
    }

    /// What is the matter, as the middle of a sentence.
    #[must_use]
    pub const fn lack(self) -> &'static str {
        match self {
            Self::Disk => "the database's disk is full (SQLSTATE 53100)",
            Self::Memory => "the database has no memory left (SQLSTATE 53200)",
            Self::Connections => "the database lets nobody else connect (SQLSTATE 53300)",
        }
    }
}

/// It was said of a resource.
#[derive(Debug, Clone)]
pub struct Shortage {
    /// Of which.
    pub resource: Resource,
    /// The database's words: they name files, roles and databases, no data.
    pub said: String,
    /// When it was said last.
    pub at: Instant,
}

/// See the module. Cheap to clone; clones share what is known.
#[derive(Debug, Clone, Default)]
pub struct Shortages(Arc<Mutex<Vec<Shortage>>>);

impl Shortages {
    /// Takes note of an error, if it is about a resource.
    pub fn note(&self, error: &Error) {
        let Some(resource) = Resource::lacking(error) else {
            return;
        };
        let said = error
            .as_db_error()
            .map_or_else(String::new, |db| db.message().to_owned());
        let mut all = self.all();
        all.retain(|shortage| shortage.resource != resource);
        all.push(Shortage {
            resource,
            said,
            at: Instant::now(),
        });
    }

    /// There is enough of it again.
    pub fn is_over(&self, resource: Resource) {
        self.all().retain(|shortage| shortage.resource != resource);
    }

    /// What is lacking now, as far as is known.
    #[must_use]
    pub fn known(&self) -> Vec<Shortage> {
        let mut all = self.all();
        all.retain(|shortage| shortage.at.elapsed() < STALE_AFTER);
        all.clone()
    }

    /// What keeps the database from storing anything, if that is known: the disk before all else.
    #[must_use]
    pub fn gravest(&self) -> Option<Resource> {
        let known = self.known();
        known.iter().map(|shortage| shortage.resource).min()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Shortage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
