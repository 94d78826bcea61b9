//! A span that has ended, as the exporter takes it.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
pub(super) use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use crate::event::{Tenant, Topic, TraceParent};

/// What a span says.
pub(super) struct Finished {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) own: TraceParent,
    /// Its parent, and whether another program made that.
    pub(super) parent: Option<(TraceParent, bool)>,
    pub(super) began: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) is_error: bool,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) links: Vec<TraceParent>,
}

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("tidewire")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
});

impl From<Finished> for SpanData {
    fn from(finished: Finished) -> Self {
        let mut links = SpanLinks::default();
        let linked = finished.links.into_iter();
        links.links = linked
            .map(|to| Link::with_context(context(to, false)))
            .collect();
        let parent = finished.parent;
        Self {
            span_context: context(finished.own, false),
            parent_span_id: parent.map_or(SpanId::INVALID, |(parent, _)| {
                SpanId::from_bytes(parent.span.to_be_bytes())
            }),
            parent_span_is_remote: parent.is_some_and(|(_, is_remote)| is_remote),
            span_kind: finished.kind,
            name: finished.name,
            start_time: finished.began,
            end_time: finished.ended,
            attributes: finished.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: if finished.is_error {
                Status::error("")
            } else {
                Status::Unset
            },
            instrumentation_scope: SCOPE.clone(),
        }
    }
}

fn context(of: TraceParent, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(of.trace.to_be_bytes()),
        SpanId::from_bytes(of.span.to_be_bytes()),
        TraceFlags::SAMPLED,
        is_remote,
        TraceState::NONE,
    )
}

/// A new span of a trace that is sampled.
pub(super) fn new(trace: u128) -> TraceParent {
    TraceParent {
        trace,
        // All zero means none.
        span: rand::random::<u64>().max(1),
        is_sampled: true,
    }
}

/// When that was, by the machine's clock as it is now.
pub(super) fn clock(then: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(then.elapsed()).unwrap_or(now)
}

/// What every span about events says.
pub(super) fn messaging(tenant: &Tenant, topic: Option<&Topic>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "tidewire"),
        KeyValue::new("tidewire.tenant", tenant.as_str().to_owned()),
    ];
    if let Some(topic) = topic {
        let topic = topic.as_str().to_owned();
        attributes.push(KeyValue::new("messaging.destination.name", topic));
    }
    attributes
}
