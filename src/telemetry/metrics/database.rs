//! The database, seen from here.

use prometheus::{IntCounter, IntGauge, IntGaugeVec};

use super::List;

/// Why something was asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// There was no connection.
    Connect,
    /// The connection broke, or the database went down.
    Lost,
    /// No answer in time.
    Silent,
    /// A deadlock or a serialisation failure.
    Conflict,
    /// The database has run out of disk, memory or connections.
    Shortage,
}

/// One of each cause.
#[derive(Debug)]
struct ByCause<T> {
    connect: T,
    lost: T,
    silent: T,
    conflict: T,
    shortage: T,
}

/// See the module.
#[derive(Debug)]
pub struct DatabaseMetrics {
    retries: ByCause<IntCounter>,
    breaker: IntGaugeVec,
    /// How often it has opened.
    pub breaker_opened: IntCounter,
    /// Connections of the pool for reading that are in use.
    pub pool_in_use: IntGauge,
    /// Connections of the pool for reading that are open and free.
    pub pool_idle: IntGauge,
    /// Requests that wait for one.
    pub pool_waiting: IntGauge,
}

impl DatabaseMetrics {
    pub(super) fn new(list: &List) -> Self {
        let retries = list.counter_vec(
            "tidewire_retries_total",
            "Batches that were sent to the database again, by cause.",
            &["cause"],
        );
        let pool = list.gauge_vec(
            "tidewire_pool_connections",
            "Connections for reading history and for administration.",
            &["state"],
        );
        let breaker = list.gauge_vec(
            "tidewire_breaker_state",
            "1 for the state of the breaker around what is written to the database.",
            &["state"],
        );
        breaker.with_label_values(&["closed"]).set(1);
        Self {
            breaker,
            breaker_opened: list.counter(
                "tidewire_breaker_opened_total",
                "How often the breaker has opened.",
            ),
            retries: ByCause {
                connect: retries.with_label_values(&["connect"]),
                lost: retries.with_label_values(&["lost"]),
                silent: retries.with_label_values(&["silent"]),
                conflict: retries.with_label_values(&["conflict"]),
                shortage: retries.with_label_values(&["shortage"]),
            },
            pool_in_use: pool.with_label_values(&["in_use"]),
            pool_idle: pool.with_label_values(&["idle"]),
            pool_waiting: list.gauge(
                "tidewire_pool_waiting",
                "Requests that wait for a connection of the pool, or for their turn to have one.",
            ),
        }
    }

    /// Of all states of the breaker, the one that it is in.
    pub fn set_breaker(&self, states: &[&'static str], now: &str) {
        for state in states {
            let is_now = i64::from(*state == now);
            self.breaker.with_label_values(&[*state]).set(is_now);
        }
    }

    /// A batch is sent again.
    pub fn retried(&self, cause: RetryCause) {
        let counter = match cause {
            RetryCause::Connect => &self.retries.connect,
            RetryCause::Lost => &self.retries.lost,
            RetryCause::Silent => &self.retries.silent,
            RetryCause::Conflict => &self.retries.conflict,
            RetryCause::Shortage => &self.retries.shortage,
        };
        counter.inc();
    }
}
