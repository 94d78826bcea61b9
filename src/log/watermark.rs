//! How far the log can be read.

use crate::event::{Position, Seq};

/// How far the log can be read, and what holds it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The newest event at or below the watermark: how far readers get. Never a place without an event, since a
    /// database that crashes takes back places whose transaction was not committed, and gives them out again.
    pub position: Position,
    /// The watermark itself.
    pub safe: Seq,
    /// The newest place that was handed out.
    pub newest: Seq,
    /// The backend behind the lowest floor.
    pub holder: Option<i32>,
}

impl Watermark {
    /// Nothing is open above this place.
    pub(super) const fn at(position: Position) -> Self {
        Self {
            position,
            safe: position.seq,
            newest: position.seq,
            holder: None,
        }
    }
}
