//! Writing, from the receipt of a request to the commit.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::{LATENCY_S, List};
use crate::event::{ByPriority, Priority};

/// Powers of about three, up to the largest batch.
const BATCH_EVENTS: &[f64] = &[
    1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
];

/// What became of an event that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Stored,
    /// It was committed before: a retry.
    Duplicate,
    /// A rule or a conflict stands against it.
    Refused,
    /// There was no room for it: overload.
    Shed,
    /// The database could not be asked, or not in time.
    Unavailable,
}

/// One of each fate.
#[derive(Debug)]
struct ByFate<T> {
    stored: T,
    duplicate: T,
    refused: T,
    shed: T,
    unavailable: T,
}

impl<T> ByFate<T> {
    fn of(&self, fate: Fate) -> &T {
        match fate {
            Fate::Stored => &self.stored,
            Fate::Duplicate => &self.duplicate,
            Fate::Refused => &self.refused,
            Fate::Shed => &self.shed,
            Fate::Unavailable => &self.unavailable,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct AppendMetrics {
    events: ByPriority<ByFate<IntCounter>>,
    committed: ByPriority<Histogram>,
    waited: ByPriority<Histogram>,
    queued: ByPriority<IntGauge>,
    queued_bytes: IntGauge,
    /// Groups in the patient lanes' queue.
    pub patient: IntGauge,
    batch: Histogram,
    batch_events: Histogram,
    batch_limit: IntGauge,
}

impl AppendMetrics {
    pub(super) fn new(list: &List) -> Self {
        let events = list.counter_vec(
            "tidewire_append_events_total",
            "Events that were to be stored through this server, by what became of them.",
            &["priority", "result"],
        );
        let committed = list.histogram_vec(
            "tidewire_append_seconds",
            "From the receipt of an event at this server to its commit.",
            LATENCY_S,
            &["priority"],
        );
        let waited = list.histogram_vec(
            "tidewire_append_wait_seconds",
            "How long requests waited to be batched.",
            LATENCY_S,
            &["priority"],
        );
        let queued: IntGaugeVec = list.gauge_vec(
            "tidewire_append_queue_requests",
            "Requests that wait to be batched.",
            &["priority"],
        );
        Self {
            events: ByPriority::new(|priority| {
                let of =
                    |result: &str| events.with_label_values(&[priority.as_str(), result]);
                ByFate {
                    stored: of("stored"),
                    duplicate: of("duplicate"),
                    refused: of("refused"),
                    shed: of("shed"),
                    unavailable: of("unavailable"),
                }
            }),
            committed: ByPriority::new(|p| committed.with_label_values(&[p.as_str()])),
            waited: ByPriority::new(|p| waited.with_label_values(&[p.as_str()])),
            queued: ByPriority::new(|p| queued.with_label_values(&[p.as_str()])),
            queued_bytes: list.gauge(
                "tidewire_append_queue_bytes",
                "Bytes of events that wait to be batched.",
            ),
            patient: list.gauge(
                "tidewire_append_patient_requests",
                "Requests that wait for other transactions, or whose members are refused one by one.",
            ),
            batch: list.histogram(
                "tidewire_batch_seconds",
                "How long the database took for a batch, its commit included.",
                LATENCY_S,
            ),
            batch_events: list.histogram(
                "tidewire_batch_events",
                "Events that were stored with one statement.",
                BATCH_EVENTS,
            ),
            batch_limit: list.gauge(
                "tidewire_batch_limit_events",
                "How many events a batch may hold now: it shrinks under latency pressure and grows under load.",
            ),
        }
    }

    /// So many events of this priority had this fate.
    pub fn count(&self, priority: Priority, fate: Fate, events: u64) {
        self.events.of(priority).of(fate).inc_by(events);
    }

    /// So many events of each priority had this fate.
    pub fn count_each(&self, events: &ByPriority<u64>, fate: Fate) {
        for priority in Priority::ALL {
            self.count(priority, fate, *events.of(priority));
        }
    }

    /// An event of this priority was committed so long after it was received.
    pub fn committed(&self, priority: Priority, after: Duration) {
        self.committed.of(priority).observe(after.as_secs_f64());
    }

    /// A request of this priority waited so long to be batched.
    pub fn waited(&self, priority: Priority, waited: Duration) {
        self.waited.of(priority).observe(waited.as_secs_f64());
    }

    /// A batch of so many events was stored with one statement, which took so long.
    pub fn batch(&self, events: usize, took: Duration) {
        self.batch.observe(took.as_secs_f64());
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.batch_events.observe(f64::from(events));
    }

    /// A batch may hold so many events now.
    pub fn set_batch_limit(&self, events: usize) {
        self.batch_limit
            .set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// So much waits now.
    pub fn set_queued(&self, requests: &ByPriority<usize>, bytes: usize) {
        for priority in Priority::ALL {
            self.queued
                .of(priority)
                .set(i64::try_from(*requests.of(priority)).unwrap_or(i64::MAX));
        }
        self.queued_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
