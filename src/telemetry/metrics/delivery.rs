//! Reading: from the commit to the reader's line, and how far everything is behind.

use std::time::Duration;

use prometheus::core::Metric as _;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::connections::{ByTransport, Transport};
use super::{LATENCY_S, List};
use crate::event::{ByPriority, Priority};
use crate::telemetry::recent::Buckets;

/// How an event came to this server's readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This server committed it and handed it on.
    Commit,
    /// It was found in the log: what another server stored, or SQL, and own events that came behind a gap or a retry. Measured
    /// from `recorded_at`, by the database's clock against this machine's.
    Look,
}

/// See the module.
#[derive(Debug)]
pub struct DeliveryMetrics {
    visible_by_commit: Histogram,
    visible_by_look: Histogram,
    delivered: ByPriority<ByTransport<Histogram>>,
    events: ByTransport<IntCounter>,
    /// Events of the log above the watermark.
    pub watermark_lag: IntGauge,
    /// How long a transaction has been open that holds the watermark back.
    pub watermark_held: Gauge,
    /// Whether the last look at the log succeeded: 0 or 1.
    pub tail_up: IntGauge,
    notify_mode: IntGaugeVec,
    /// Events in the window.
    pub window_events: IntGauge,
    /// Bytes in the window.
    pub window_bytes: IntGauge,
    /// Bytes that the window may hold.
    pub window_limit: IntGauge,
    window_evicted: [IntCounter; 2],
    /// Readers in the match index.
    pub subscriptions: IntGauge,
    /// Readers that are behind and wait for a turn or for history.
    pub behind: IntGauge,
    /// Pages that readers wanted from history.
    pub history_reads: IntCounter,
    /// Times a live reader fell behind the window, by what it had asked for.
    lagged: ByLag<IntCounter>,
}

/// One for each answer to lag.
#[derive(Debug)]
struct ByLag<T> {
    catch_up: T,
    skip: T,
    disconnect: T,
}

impl DeliveryMetrics {
    pub(super) fn new(list: &List) -> Self {
        let visible = list.histogram_vec(
            "tidewire_visible_seconds",
            "From an event's commit until readers of this server can have it; from recorded_at for what was found by a look at the log.",
            LATENCY_S,
            &["origin"],
        );
        let delivered = list.histogram_vec(
            "tidewire_delivery_seconds",
            "From the receipt of an event at this server until it is on a live reader's line; from recorded_at for what was found by a look at the log.",
            LATENCY_S,
            &["priority", "transport"],
        );
        let events = list.counter_vec(
            "tidewire_delivered_events_total",
            "Events that were handed to readers' lines.",
            &["transport"],
        );
        Self {
            window_evicted: window_evicted(list),
            window_limit: list.gauge(
                "tidewire_window_limit_bytes",
                "How many bytes of events may be in memory: --window-bytes.",
            ),
            visible_by_commit: visible.with_label_values(&["commit"]),
            visible_by_look: visible.with_label_values(&["look"]),
            delivered: ByPriority::new(|priority| {
                ByTransport::new(|transport| {
                    delivered.with_label_values(&[priority.as_str(), transport.as_str()])
                })
            }),
            events: ByTransport::new(|t| events.with_label_values(&[t.as_str()])),
            watermark_lag: list.gauge(
                "tidewire_watermark_lag_events",
                "Places that are given and not yet delivered: an open transaction may still fill one below them.",
            ),
            watermark_held: list.seconds_gauge(
                "tidewire_watermark_held_seconds",
                "How long an open transaction has held back events that are committed; 0 if none does.",
            ),
            tail_up: list.gauge(
                "tidewire_tail_up",
                "Whether the last look at the log succeeded: 1, or 0.",
            ),
            notify_mode: list.gauge_vec(
                "tidewire_wake_up_mode",
                "1 for the way in which this server learns of new events now.",
                &["mode"],
            ),
            window_events: list.gauge("tidewire_window_events", "Events in memory."),
            window_bytes: list.gauge("tidewire_window_bytes", "Bytes of the events in memory."),
            subscriptions: list.gauge("tidewire_subscriptions", "Readers in the match index."),
            behind: list.gauge(
                "tidewire_readers_behind",
                "Readers that are behind the end of the log and wait for their turn.",
            ),
            history_reads: list.counter(
                "tidewire_history_reads_total",
                "Pages that readers wanted from history, because the window does not reach back far enough.",
            ),
            lagged: lagged(list),
        }
    }

    /// So many events left the window: of tenants that nobody uses, of the one that held most.
    pub fn evicted(&self, idle: u64, largest: u64) {
        let [of_idle, of_largest] = &self.window_evicted;
        of_idle.inc_by(idle);
        of_largest.inc_by(largest);
    }

    /// An event became visible so long after its commit.
    pub fn visible(&self, origin: Origin, after: Duration) {
        let histogram = match origin {
            Origin::Commit => &self.visible_by_commit,
            Origin::Look => &self.visible_by_look,
        };
        histogram.observe(after.as_secs_f64());
    }

    /// An event was on a live reader's line so long after its receipt.
    pub fn delivered(&self, priority: Priority, transport: Transport, after: Duration) {
        let histogram = self.delivered.of(priority).of(transport);
        histogram.observe(after.as_secs_f64());
    }

    /// What was measured of deliveries of this priority, over all transports.
    #[must_use]
    pub fn latencies(&self, priority: Priority) -> Buckets {
        let mut all = Buckets::default();
        for histogram in self.delivered.of(priority).each() {
            all.add(&buckets(histogram));
        }
        all
    }

    /// So many events were handed to a line, live or not.
    pub fn count(&self, transport: Transport, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        self.events.of(transport).inc_by(events);
    }

    /// A live reader fell behind the window and now gets everything from history.
    pub fn caught_up_by_history(&self) {
        self.lagged.catch_up.inc();
    }

    /// A live reader fell behind the window and is told of a gap.
    pub fn skipped(&self) {
        self.lagged.skip.inc();
    }

    /// A live reader fell behind the window and is disconnected.
    pub fn disconnected(&self) {
        self.lagged.disconnect.inc();
    }

    /// New events are learnt of in this way now; `modes` are all there are.
    pub fn set_notify_mode(&self, modes: &[&str], now: &str) {
        for mode in modes {
            let is_now = i64::from(*mode == now);
            self.notify_mode.with_label_values(&[*mode]).set(is_now);
        }
    }
}

fn buckets(histogram: &Histogram) -> Buckets {
    let metric = histogram.metric();
    let seen = metric.get_histogram();
    let upto = seen.get_bucket().iter();
    Buckets {
        upto: upto
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect(),
        count: seen.get_sample_count(),
    }
}

/// How events leave the window where it is full.
fn window_evicted(list: &List) -> [IntCounter; 2] {
    let window_evicted = list.counter_vec(
        "tidewire_window_evicted_total",
        "Events that left memory because the window was full: of tenants that nobody uses, and of the one that held most.",
        &["cause"],
    );
    ["idle", "largest"].map(|cause| window_evicted.with_label_values(&[cause]))
}

fn lagged(list: &List) -> ByLag<IntCounter> {
    let lagged = list.counter_vec(
        "tidewire_lagged_total",
        "Times a live reader fell behind the window, by what it had asked for.",
        &["on_lag"],
    );
    ByLag {
        catch_up: lagged.with_label_values(&["catch_up"]),
        skip: lagged.with_label_values(&["skip"]),
        disconnect: lagged.with_label_values(&["disconnect"]),
    }
}
