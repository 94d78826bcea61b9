//! The newest event of each topic and subject, where a client wants no more.
//!
//! # Invariants
//! - What is kept stands in log order, and a client is told how many were left out.
//! - The cursor lies behind what was left out as well: who resumes gets none of it.

use std::collections::HashSet;
use std::sync::Arc;

use crate::event::Event;

/// Leaves the newest event of each topic and subject. Returns how many were left out.
pub(super) fn conflate(events: &mut Vec<Arc<Event>>) -> u64 {
    let before = events.len();
    let mut seen = HashSet::with_capacity(before);
    let is_newest: Vec<bool> = events
        .iter()
        .rev()
        .map(|event| seen.insert((event.topic.clone(), event.subject.clone())))
        .collect();
    let mut is_newest = is_newest.into_iter().rev();
    events.retain(|_| is_newest.next().unwrap_or(true));
    let left_out = before.saturating_sub(events.len());
    u64::try_from(left_out).unwrap_or(u64::MAX)
}
