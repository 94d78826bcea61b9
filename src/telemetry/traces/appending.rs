//! The spans of a request's events on their way into the log.
//!
//! # Invariants
//! - A request's events may belong to several traces; of more than [`TRACES_MAX`] the rest goes without spans.
//! - A batch is one span, in the first trace of it; the others are linked to it, and it to [`LINKS_MAX`] of them.

use std::time::{Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::span::{self, Finished};
use super::{RequestSpan, Traces};
use crate::event::{NewEvent, Tenant, Topic, TraceParent};

/// Traces of one request.
const TRACES_MAX: usize = 16;
/// Links of one batch.
const LINKS_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct Appending {
    traces: Traces,
    spans: Vec<Part>,
    received: Instant,
    taken: Option<Instant>,
    batch: Option<TraceParent>,
}

/// The events of one trace.
#[derive(Debug)]
struct Part {
    own: TraceParent,
    parent: TraceParent,
    is_remote: bool,
    events: i64,
    /// None if they have several.
    topic: Option<Topic>,
}

/// What became of a request's events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcomes {
    /// Stored now.
    pub stored: i64,
    /// Stored before.
    pub duplicates: i64,
    /// Not stored.
    pub failed: i64,
}

impl Traces {
    /// Begins the spans of a request's events; none if none of their traces is sampled.
    #[must_use]
    pub fn appending(
        &self,
        events: &[NewEvent],
        request: Option<&RequestSpan>,
        received: Instant,
    ) -> Option<Box<Appending>> {
        if !self.are_on() {
            return None;
        }
        let mut spans: Vec<Part> = Vec::new();
        for event in events {
            let Some((parent, is_remote)) = self.parent(event, request) else {
                continue;
            };
            if let Some(part) = spans.iter_mut().find(|part| part.parent == parent) {
                part.events = part.events.saturating_add(1);
                part.topic = part.topic.take().filter(|topic| *topic == event.topic);
            } else if spans.len() < TRACES_MAX {
                spans.push(Part {
                    own: span::new(parent.trace),
                    parent,
                    is_remote,
                    events: 1,
                    topic: Some(event.topic.clone()),
                });
            }
        }
        (!spans.is_empty()).then(|| {
            Box::new(Appending {
                traces: self.clone(),
                spans,
                received,
                taken: None,
                batch: None,
            })
        })
    }

    /// The request if the event's trace is the request's; else what the event names.
    fn parent(
        &self,
        event: &NewEvent,
        request: Option<&RequestSpan>,
    ) -> Option<(TraceParent, bool)> {
        let named = event.trace.as_deref().and_then(TraceParent::parse);
        let parent = match (named, request) {
            (Some(named), Some(request)) if request.parent == Some(named) => (request.own, false),
            (Some(named), _) => (named, true),
            (None, Some(request)) => (request.own, false),
            (None, None) => return None,
        };
        self.samples(&parent.0).then_some(parent)
    }

    /// One statement has stored these, so many events with all that came along.
    pub fn committed<'a>(
        &self,
        groups: impl Iterator<Item = &'a mut Appending>,
        began: Instant,
        events: usize,
    ) {
        let mut groups: Vec<&mut Appending> = groups.collect();
        let mut parts = groups.iter().flat_map(|group| &group.spans);
        let Some(parent) = parts.next().map(|part| part.own) else {
            return;
        };
        let own = span::new(parent.trace);
        let links = parts.map(|part| part.own).take(LINKS_MAX).collect();
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.end(Finished {
            name: "commit".into(),
            kind: SpanKind::Client,
            own,
            parent: Some((parent, false)),
            began: span::clock(began),
            ended: SystemTime::now(),
            is_error: false,
            attributes: vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", "INSERT"),
                KeyValue::new("messaging.batch.message_count", events),
            ],
            links,
        });
        for group in &mut groups {
            group.batch = Some(own);
        }
    }
}

impl Appending {
    /// A lane has taken the events.
    pub fn taken(&mut self, at: Instant) {
        // Those that were given back have been taken before.
        self.taken.get_or_insert(at);
    }

    /// Ends the spans: the request is answered.
    pub fn end(self, tenant: &Tenant, outcomes: Outcomes) {
        let (received, ended) = (span::clock(self.received), SystemTime::now());
        let waited = |at: Instant| at.saturating_duration_since(self.received);
        for part in self.spans {
            if let Some(at) = self.taken {
                self.traces.end(Finished {
                    name: "queue".into(),
                    kind: SpanKind::Internal,
                    own: span::new(part.own.trace),
                    parent: Some((part.own, false)),
                    began: received,
                    ended: received.checked_add(waited(at)).unwrap_or(received),
                    is_error: false,
                    attributes: Vec::new(),
                    links: Vec::new(),
                });
            }
            let mut attributes = span::messaging(tenant, part.topic.as_ref());
            attributes.extend([
                KeyValue::new("messaging.operation.name", "append"),
                KeyValue::new("messaging.operation.type", "receive"),
                KeyValue::new("messaging.batch.message_count", part.events),
                KeyValue::new("tidewire.request.stored", outcomes.stored),
                KeyValue::new("tidewire.request.duplicates", outcomes.duplicates),
                KeyValue::new("tidewire.request.failed", outcomes.failed),
            ]);
            self.traces.end(Finished {
                name: "append".into(),
                kind: SpanKind::Consumer,
                own: part.own,
                parent: Some((part.parent, part.is_remote)),
                began: received,
                ended,
                is_error: outcomes.failed > 0,
                attributes,
                links: self.batch.into_iter().collect(),
            });
        }
    }
}
