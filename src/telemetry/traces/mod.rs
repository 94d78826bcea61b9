//! Spans: what became of an event, in the trace that its producer began.
//!
//! # Invariants
//! - A trace is known by its W3C traceparent alone: what an event's `trace` says, or its request's header. What the event
//!   says is stored as it came, so every server continues the same trace.
//! - Spans are made when they have ended: what is not sampled costs a comparison, and off nothing is even parsed.
//! - No span holds a credential, a query string, a subject or an event's data.
//! - Nobody waits for the collector: at the bound of the queue a span is dropped, and counted.

mod appending;
mod collector;
mod export;
mod sampler;
mod span;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::sync::mpsc;

use crate::event::{Event, TraceParent};

pub use appending::{Appending, Outcomes};
pub use export::{Exporter, ExporterError, TracesSettings};
pub use sampler::{NotASampler, Sampling};
use span::{Finished, SpanData};

use super::metrics::{SpanFate, SpanMetrics, Transport};

/// Makes spans, or does nothing. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<SpanData>,
    sampling: Sampling,
    metrics: SpanMetrics,
}

/// A request whose span has begun.
#[derive(Debug, Clone, Copy)]
pub struct RequestSpan {
    /// What the client sent.
    pub parent: Option<TraceParent>,
    /// The span of the request.
    pub own: TraceParent,
    began: Instant,
}

impl Traces {
    /// Whether spans are made at all.
    #[must_use]
    pub const fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a request, if its trace is sampled.
    #[must_use]
    pub fn request(&self, parent: impl FnOnce() -> Option<TraceParent>) -> Option<RequestSpan> {
        let inner = self.0.as_ref()?;
        let parent = parent();
        let trace = parent.map_or_else(rand::random, |parent| parent.trace);
        inner
            .sampling
            .samples(parent.as_ref(), trace)
            .then(|| RequestSpan {
                parent,
                own: span::new(trace),
                began: Instant::now(),
            })
    }

    /// Ends the span of a request.
    pub fn answered(&self, request: &RequestSpan, method: &'static str, route: &str, status: u16) {
        self.end(Finished {
            name: format!("{method} {route}").into(),
            kind: SpanKind::Server,
            own: request.own,
            parent: request.parent.map(|parent| (parent, true)),
            began: span::clock(request.began),
            ended: SystemTime::now(),
            is_error: status >= 500,
            attributes: vec![
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("http.response.status_code", i64::from(status)),
            ],
            links: Vec::new(),
        });
    }

    /// Readers of this server can have the event now.
    pub fn visible(&self, event: &Event) {
        self.of_event(event, "visible", SpanKind::Internal, Vec::new);
    }

    /// A live reader has the event; only the first on each transport makes a span.
    pub fn delivered(&self, event: &Event, transport: Transport) {
        if event.trace.is_some() && self.are_on() && event.is_first_on(transport.number()) {
            self.of_event(event, "deliver", SpanKind::Producer, || {
                vec![
                    KeyValue::new("messaging.operation.name", "deliver"),
                    KeyValue::new("messaging.operation.type", "send"),
                    KeyValue::new("tidewire.transport", transport.as_str()),
                ]
            });
        }
    }

    /// From the event's commit until now.
    fn of_event(
        &self,
        event: &Event,
        name: &'static str,
        kind: SpanKind,
        more: impl FnOnce() -> Vec<KeyValue>,
    ) {
        let (Some(inner), Some(parent)) = (&self.0, event.trace.as_deref()) else {
            return;
        };
        if !inner.sampling.samples(Some(parent), parent.trace) {
            return;
        }
        let began = event.receipt.map_or_else(
            || SystemTime::from(event.position.at()),
            |receipt| span::clock(receipt.committed),
        );
        let mut attributes = more();
        attributes.extend(span::messaging(&event.tenant, Some(&event.topic)));
        attributes.push(KeyValue::new("tidewire.cursor", event.cursor.to_string()));
        attributes.push(KeyValue::new("tidewire.priority", event.priority.as_str()));
        let ended = SystemTime::now();
        self.end(Finished {
            name: name.into(),
            kind,
            own: span::new(parent.trace),
            parent: Some((*parent, true)),
            // The database's clock may be ahead.
            began: began.min(ended),
            ended,
            is_error: false,
            attributes,
            links: Vec::new(),
        });
    }

    fn end(&self, finished: Finished) {
        if let Some(inner) = &self.0
            && inner.queue.try_send(finished.into()).is_err()
        {
            inner.metrics.count(SpanFate::Dropped, 1);
        }
    }

    fn samples(&self, parent: &TraceParent) -> bool {
        let inner = self.0.as_ref();
        inner.is_some_and(|inner| inner.sampling.samples(Some(parent), parent.trace))
    }
}
