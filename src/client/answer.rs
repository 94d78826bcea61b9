//! What the server answers to a line, and what becomes of the line then.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::{Error, Line, Problem};

/// Where an event was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// Its cursor.
    pub cursor: String,
    /// Whether it had been stored before.
    #[serde(default)]
    pub duplicate: bool,
}

/// A line and what became of it.
#[derive(Debug)]
pub struct Answer {
    /// The line.
    pub line: Line,
    /// Stored, or why not.
    pub result: Result<Stored, Problem>,
}

/// What appending brings.
#[derive(Debug)]
pub enum Sending {
    /// Lines got their answers.
    Answered(Vec<Answer>),
    /// The line is gone or the server is overloaded; the next call tries again after `delay`.
    Retrying {
        /// What happened.
        why: Error,
        /// When it goes on.
        delay: Duration,
    },
}

/// A line of the server's answer: one of the two.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    /// Which line of the request, from 1; absent if it is about the request as a whole.
    pub(super) line: Option<u64>,
    /// Why it was not stored.
    pub(super) error: Option<Problem>,
    /// Where it was.
    #[serde(flatten)]
    pub(super) stored: Option<Stored>,
}

/// A failure that a problem document within an answer tells of.
pub(super) fn refused(problem: Problem) -> Failure {
    let retry_after = problem
        .more
        .get("retry_after")
        .and_then(serde_json::Value::as_u64)
        .map(Duration::from_secs);
    Failure {
        passes: problem.is_passing(),
        retry_after,
        error: Error::Refused(Box::new(problem)),
    }
}
