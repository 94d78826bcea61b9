//! Ids that come more than once in one request whose members are stored each by itself.

use std::collections::HashMap;

use crate::event::{EventId, NewEvent};

/// Ends a part before an id that comes again with other content: which of the two is the one that the log knows, only
/// the log can say.
pub(super) fn parts(events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let mut parts = Vec::new();
    let mut part: Vec<NewEvent> = Vec::with_capacity(events.len());
    let mut by_id: HashMap<EventId, usize> = HashMap::new();
    for event in events {
        if let Some(id) = &event.id {
            let first = by_id.get(id).and_then(|first| part.get(*first));
            if first.is_some_and(|first| !first.has_same_content(&event)) {
                parts.push(std::mem::take(&mut part));
                by_id.clear();
            }
            by_id.entry(id.clone()).or_insert(part.len());
        }
        part.push(event);
    }
    parts.push(part);
    parts
}
