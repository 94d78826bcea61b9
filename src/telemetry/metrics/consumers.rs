//! Consumers: named readers of the log that the server itself is.

use prometheus::{IntGauge, IntGaugeVec};

use super::List;

/// See the module.
#[derive(Debug)]
pub struct ConsumerMetrics {
    lag: IntGaugeVec,
    active: IntGaugeVec,
    paused: IntGaugeVec,
    /// Subjects of all tenants that are silent for longer than they may be; 0 where another server looks.
    pub stalled: IntGauge,
}

impl ConsumerMetrics {
    pub(super) fn new(list: &List) -> Self {
        Self {
            lag: list.gauge_vec(
                "tidewire_consumer_lag_events",
                "Places that are given out and that the consumer has not passed; 0 where another server runs it.",
                &["consumer"],
            ),
            active: list.gauge_vec(
                "tidewire_consumer_active",
                "Whether this server runs the consumer: 1, or 0.",
                &["consumer"],
            ),
            paused: list.gauge_vec(
                "tidewire_consumer_paused",
                "Whether an operator has paused the consumer, wherever it runs: 1, or 0.",
                &["consumer"],
            ),
            stalled: list.gauge(
                "tidewire_watch_stalled_subjects",
                "Watched subjects that have stalled, of all tenants; 0 where another server runs the watch.",
            ),
        }
    }

    /// How a consumer stands.
    pub fn set(
        &self,
        consumer: &'static str,
        (is_active, is_paused): (bool, bool),
        lag_events: i64,
    ) {
        self.lag.with_label_values(&[consumer]).set(lag_events);
        let active = i64::from(is_active);
        self.active.with_label_values(&[consumer]).set(active);
        let paused = i64::from(is_paused);
        self.paused.with_label_values(&[consumer]).set(paused);
    }
}
