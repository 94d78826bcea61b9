//! What became of spans.

use prometheus::IntCounter;

use super::List;

/// What became of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector has it.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector did not take the request.
    Failed,
    /// The collector took the request, but not this span of it.
    Rejected,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SpanMetrics {
    exported: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
    rejected: IntCounter,
}

impl SpanMetrics {
    pub(super) fn new(list: &List) -> Self {
        let spans = list.counter_vec(
            "tidewire_spans_total",
            "Spans by what became of them: exported, dropped because the queue was full, failed because the collector did not take the request, or rejected because it took the request and not them.",
            &["result"],
        );
        Self {
            exported: spans.with_label_values(&["exported"]),
            dropped: spans.with_label_values(&["dropped"]),
            failed: spans.with_label_values(&["failed"]),
            rejected: spans.with_label_values(&["rejected"]),
        }
    }

    /// That became of so many.
    pub fn count(&self, fate: SpanFate, spans: usize) {
        let counter = match fate {
            SpanFate::Exported => &self.exported,
            SpanFate::Dropped => &self.dropped,
            SpanFate::Failed => &self.failed,
            SpanFate::Rejected => &self.rejected,
        };
        counter.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}
