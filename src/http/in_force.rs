//! All limits that are in force, as clients and operators are shown them: in `welcome.limits` and in `/v1/status`.
//!
//! # Invariants
//! - Made once, from the same values that are enforced.

use serde::Serialize;

use super::ingest::IngestLimits;
use super::serve::Patience;
use crate::access::Limits;
use crate::access::limits::{Allowance, Allowances, Buckets, Quantity, Scope};
use crate::event::limits as bounds;

/// See the module. Sizes are bytes, times are seconds.
#[derive(Debug, Serialize)]
pub struct InForce<'a> {
    body_bytes: usize,
    line_bytes: usize,
    frame_bytes: usize,
    data_bytes: usize,
    append_events: usize,
    appends_in_flight: usize,
    topic_bytes: usize,
    topic_segments: usize,
    filter_topics: usize,
    filter_subjects: usize,
    subscriptions: usize,
    names: usize,
    page_events: usize,
    page_bytes: usize,
    wait_s: u64,
    head_timeout_s: u64,
    idle_timeout_s: u64,
    body_timeout_s: u64,
    message_timeout_s: u64,
    all: Counts,
    tenant: Allowed<'a>,
    credential: Allowed<'a>,
}

/// Of all who are connected.
#[derive(Debug, Serialize)]
struct Counts {
    connections: usize,
    subscriptions: usize,
    bodies_bytes: usize,
    messages_bytes: usize,
    queued_requests: usize,
    queued_bytes: usize,
}

/// Of each tenant or credential; what is absent is not limited beside the share of what all have.
#[derive(Debug, Serialize)]
struct Allowed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a Buckets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<&'a Buckets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<&'a Buckets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    administration: Option<&'a Buckets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<usize>,
}

impl<'a> Allowed<'a> {
    fn new(limits: &'a Limits, scope: Scope, allowance: &Allowance) -> Self {
        Self {
            events: limits.buckets(scope, Quantity::Events),
            bytes: limits.buckets(scope, Quantity::Bytes),
            reads: limits.buckets(scope, Quantity::Reads),
            administration: limits.buckets(scope, Quantity::Administration),
            connections: allowance.connections,
            subscriptions: allowance.subscriptions,
        }
    }
}

impl<'a> InForce<'a> {
    /// What is enforced.
    #[must_use]
    pub fn new(
        ingest: &IngestLimits,
        patience: &Patience,
        limits: &'a Limits,
        all: &Allowances,
    ) -> Self {
        Self {
            body_bytes: bounds::BODY_BYTES_MAX,
            line_bytes: bounds::LINE_BYTES_MAX,
            frame_bytes: bounds::FRAME_BYTES_MAX,
            data_bytes: ingest.data_bytes,
            append_events: ingest.array_events,
            appends_in_flight: bounds::SOCKET_APPENDS_MAX,
            topic_bytes: bounds::NAME_BYTES_MAX,
            topic_segments: bounds::TOPIC_SEGMENTS_MAX,
            filter_topics: bounds::FILTER_TOPICS_MAX,
            filter_subjects: bounds::FILTER_SUBJECTS_MAX,
            subscriptions: bounds::SUBSCRIPTIONS_MAX,
            names: bounds::SOCKET_NAMES_MAX,
            page_events: bounds::PAGE_EVENTS_MAX,
            page_bytes: bounds::PAGE_BYTES_MAX,
            wait_s: bounds::WAIT_MAX.as_secs(),
            head_timeout_s: patience.head.as_secs(),
            idle_timeout_s: patience.idle.as_secs(),
            body_timeout_s: patience.body.as_secs(),
            message_timeout_s: patience.message.as_secs(),
            all: Counts {
                connections: all.connections,
                subscriptions: all.subscriptions,
                bodies_bytes: bounds::BODIES_BYTES_MAX,
                messages_bytes: bounds::MESSAGES_BYTES_MAX,
                queued_requests: bounds::APPEND_QUEUE_MAX,
                queued_bytes: bounds::APPEND_QUEUE_BYTES_MAX,
            },
            tenant: Allowed::new(limits, Scope::Tenant, &all.tenant),
            credential: Allowed::new(limits, Scope::Credential, &all.credential),
        }
    }
}
