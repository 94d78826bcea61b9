//! The list of metrics: what an operator can draw and be woken by.
//!
//! # Invariants
//! - No label names a tenant, a subject, a credential or anything else that a client chooses: a scrape is read by whoever
//!   runs the server, and the number of series is bounded by this list.
//! - Names, units and suffixes are those of Prometheus: base units, `_total` for what only grows.
//! - Recording is a few atomic additions: no lock, no allocation, no search by name.

mod append;
mod connections;
mod consumers;
mod database;
mod delivery;
mod spans;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricType};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use append::{AppendMetrics, Fate};
pub use connections::{ConnectionMetrics, Eviction, Open, Transport};
pub use consumers::ConsumerMetrics;
pub use database::{DatabaseMetrics, RetryCause};
pub use delivery::{DeliveryMetrics, Origin};
pub use spans::{SpanFate, SpanMetrics};

use super::traces::Traces;

/// From half a millisecond, which is about the least that a commit takes, to the time after which requests are given up.
const LATENCY_S: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// All metrics of one server; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

/// See [`Metrics`].
#[derive(Debug)]
pub struct Inner {
    registry: Registry,
    /// Writing.
    pub append: AppendMetrics,
    /// Reading.
    pub delivery: DeliveryMetrics,
    /// Requests and connections.
    pub connections: ConnectionMetrics,
    /// Consumers.
    pub consumers: ConsumerMetrics,
    /// The database, seen from here.
    pub database: DatabaseMetrics,
    /// What became of spans.
    pub spans: SpanMetrics,
    /// What is traced, beside what is counted.
    pub traces: Traces,
}

impl std::ops::Deref for Metrics {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::tracing(|_| Traces::default())
    }

    /// The same, with spans made by what `traces` makes of their counts.
    pub(super) fn tracing(traces: impl FnOnce(SpanMetrics) -> Traces) -> Self {
        let list = List(Registry::new());
        list.gauge_vec(
            "tidewire_build_info",
            "Always 1; the label says which version runs.",
            &["version"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
        #[cfg(target_os = "linux")]
        list.add(prometheus::process_collector::ProcessCollector::for_self());
        let spans = SpanMetrics::new(&list);
        Self(Arc::new(Inner {
            append: AppendMetrics::new(&list),
            delivery: DeliveryMetrics::new(&list),
            connections: ConnectionMetrics::new(&list),
            consumers: ConsumerMetrics::new(&list),
            database: DatabaseMetrics::new(&list),
            traces: traces(spans.clone()),
            spans,
            registry: list.0,
        }))
    }

    /// All of them in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be written");
                String::new()
            })
    }

    /// Each series with its value; of a histogram how many it has counted and the sum, and no buckets.
    #[must_use]
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        for family in &self.registry.gather() {
            for metric in family.get_metric() {
                let (name, labels) = (family.name(), labels(metric.get_label()));
                match family.get_field_type() {
                    MetricType::COUNTER => {
                        values.push((format!("{name}{labels}"), metric.get_counter().get_value()));
                    }
                    MetricType::GAUGE => {
                        values.push((format!("{name}{labels}"), metric.get_gauge().get_value()));
                    }
                    MetricType::HISTOGRAM => {
                        let histogram = metric.get_histogram();
                        let count = u32::try_from(histogram.get_sample_count());
                        let count = f64::from(count.unwrap_or(u32::MAX));
                        values.push((format!("{name}_count{labels}"), count));
                        values.push((format!("{name}_sum{labels}"), histogram.get_sample_sum()));
                    }
                    MetricType::SUMMARY | MetricType::UNTYPED => {}
                }
            }
        }
        values
    }
}

/// As Prometheus writes them; no value here needs escaping.
fn labels(pairs: &[LabelPair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pair = |pair: &LabelPair| format!("{}=\"{}\"", pair.name(), pair.value());
    let pairs: Vec<String> = pairs.iter().map(pair).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Makes metrics and enters them. A name that breaks the rules is a fault of the list; `tests` enter it whole.
struct List(Registry);

impl List {
    fn add(&self, metric: impl Collector + 'static) {
        let added = self.0.register(Box::new(metric));
        debug_assert!(added.is_ok(), "{added:?}");
    }

    fn entered<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        #[expect(
            clippy::expect_used,
            reason = "names and help texts are constants of this folder, and its test makes them all"
        )]
        let metric = made.expect("a valid name");
        self.add(metric.clone());
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.entered(IntCounter::new(name, help))
    }

    fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.entered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.entered(IntGauge::new(name, help))
    }

    fn seconds_gauge(&self, name: &str, help: &str) -> Gauge {
        self.entered(Gauge::new(name, help))
    }

    fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.entered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.entered(Histogram::with_opts(options))
    }

    fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.entered(HistogramVec::new(options, labels))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::event::Priority;

    #[test]
    fn the_list_is_whole_and_two_servers_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.append.count(Priority::Critical, Fate::Stored, 3);
        one.connections
            .answered("/v1/events", "GET", 200, Duration::from_millis(3));
        let counted = "tidewire_append_events_total{priority=\"critical\",result=\"stored\"} ";
        assert!(one.text().contains(&format!("{counted}3\n")));
        assert!(other.text().contains(&format!("{counted}0\n")));
    }

    #[test]
    fn a_connection_is_counted_until_it_is_dropped() {
        let metrics = Metrics::new();
        let open = metrics.connections.opened(Transport::Sse);
        let gauge = "tidewire_connections{transport=\"sse\"} ";
        assert!(metrics.text().contains(&format!("{gauge}1\n")));
        drop(open);
        assert!(metrics.text().contains(&format!("{gauge}0\n")));
        let lasted = "tidewire_connection_seconds_count{transport=\"sse\"} 1\n";
        assert!(metrics.text().contains(lasted));
    }

    /// Rows of the manual: name and kind.
    fn rows(text: &str) -> BTreeSet<(String, String)> {
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `tidewire_")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`');
            Some((format!("tidewire_{name}"), cells.next()?.trim().to_owned()))
        };
        text.lines().filter_map(row).collect()
    }

    #[test]
    fn the_manual_lists_every_metric_with_its_kind() {
        let manual = include_str!("../../../docs/OPERATIONS.md");
        let (_, manual) = manual.split_once("\n## Metrics\n").unwrap();
        let (manual, _) = manual.split_once("\n## ").unwrap();
        let metrics = Metrics::new();
        // Those that are counted by labels appear when something is counted.
        metrics
            .connections
            .answered("/v1/events", "GET", 200, Duration::ZERO);
        metrics.connections.closed(1000);
        metrics.delivery.set_notify_mode(&["awake"], "awake");
        metrics.consumers.set("watch", (false, false), 0);
        let text = metrics.text();
        let kinds = text.lines().filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE tidewire_")?.split_once(' ')?;
            Some((format!("tidewire_{name}"), kind.to_owned()))
        });
        assert_eq!(rows(manual), kinds.collect());
    }

    #[test]
    fn every_series_has_one_line() {
        let text = Metrics::new().text();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let series = line.rsplit_once(' ').unwrap().0;
            assert!(seen.insert(series), "{series} stands twice");
        }
        assert!(seen.len() > 100);
    }
}
