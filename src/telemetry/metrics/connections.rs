//! Requests and connections.

use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::{LATENCY_S, List};

/// From a moment to a day.
const LIFETIME_S: &[f64] = &[
    0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0,
];

/// How a reader is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// A page that waits for events.
    LongPoll,
    /// A page of what there is.
    Page,
    /// A stream of NDJSON to be stored.
    Upload,
}

impl Transport {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::LongPoll => "long_poll",
            Self::Page => "page",
            Self::Upload => "upload",
        }
    }
}

impl Transport {
    /// Its number, below eight.
    pub(in crate::telemetry) const fn number(self) -> u8 {
        match self {
            Self::WebSocket => 0,
            Self::Sse => 1,
            Self::LongPoll => 2,
            Self::Page => 3,
            Self::Upload => 4,
        }
    }
}

/// One of each transport.
#[derive(Debug)]
pub(super) struct ByTransport<T> {
    websocket: T,
    sse: T,
    long_poll: T,
    page: T,
    upload: T,
}

impl<T> ByTransport<T> {
    pub(super) fn new(mut make: impl FnMut(Transport) -> T) -> Self {
        Self {
            websocket: make(Transport::WebSocket),
            sse: make(Transport::Sse),
            long_poll: make(Transport::LongPoll),
            page: make(Transport::Page),
            upload: make(Transport::Upload),
        }
    }

    pub(super) fn each(&self) -> [&T; 5] {
        [
            &self.websocket,
            &self.sse,
            &self.long_poll,
            &self.page,
            &self.upload,
        ]
    }

    pub(super) const fn of(&self, transport: Transport) -> &T {
        match transport {
            Transport::WebSocket => &self.websocket,
            Transport::Sse => &self.sse,
            Transport::LongPoll => &self.long_poll,
            Transport::Page => &self.page,
            Transport::Upload => &self.upload,
        }
    }
}

/// What was done where sessions held too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// One that was idle was told to go.
    Idle,
    /// One whose client was slow to take what it was sent was told to go.
    Slow,
    /// A new one, or a subscription, was refused.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct ConnectionMetrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    open: ByTransport<IntGauge>,
    limit: IntGauge,
    lifetime: ByTransport<Histogram>,
    closes: IntCounterVec,
    evicted: [IntCounter; 3],
    /// Bytes that sessions hold.
    pub sessions_bytes: IntGauge,
    sessions_limit: IntGauge,
    /// Bytes held of request bodies that are not complete.
    pub bodies_bytes: IntGauge,
    /// Bytes held of WebSocket messages that are not complete.
    pub messages_bytes: IntGauge,
    unanswered: IntCounter,
}

impl ConnectionMetrics {
    pub(super) fn new(list: &List) -> Self {
        let open = list.gauge_vec(
            "tidewire_connections",
            "Connections that last: sockets, streams, waiting long-polls, uploads.",
            &["transport"],
        );
        let lifetime = list.histogram_vec(
            "tidewire_connection_seconds",
            "How long connections lasted.",
            LIFETIME_S,
            &["transport"],
        );
        let evicted = list.counter_vec(
            "tidewire_sessions_evicted_total",
            "Sessions that were told to go because all of them held too much, by cause, and those that were refused for it.",
            &["cause"],
        );
        Self {
            evicted: ["idle", "slow", "refused"].map(|cause| evicted.with_label_values(&[cause])),
            sessions_bytes: list.gauge(
                "tidewire_sessions_bytes",
                "Bytes that sessions hold: their buffers, their subscriptions, and what waits for their clients.",
            ),
            sessions_limit: list.gauge(
                "tidewire_sessions_limit_bytes",
                "How much sessions may hold: --session-bytes.",
            ),
            requests: list.counter_vec(
                "tidewire_http_requests_total",
                "Requests, by route and status; those that become a stream count when they begin.",
                &["route", "method", "status"],
            ),
            request_seconds: list.histogram_vec(
                "tidewire_http_request_seconds",
                "From a request's head to the head of its answer.",
                LATENCY_S,
                &["route"],
            ),
            open: ByTransport::new(|t| open.with_label_values(&[t.as_str()])),
            limit: list.gauge(
                "tidewire_connections_limit",
                "How many connections may last at once: --connections-max.",
            ),
            lifetime: ByTransport::new(|t| lifetime.with_label_values(&[t.as_str()])),
            closes: list.counter_vec(
                "tidewire_websocket_closes_total",
                "WebSockets that ended, by close code; 1006 for those that ended without one.",
                &["code"],
            ),
            bodies_bytes: list.gauge(
                "tidewire_request_bodies_bytes",
                "Bytes held of request bodies that are not complete.",
            ),
            messages_bytes: list.gauge(
                "tidewire_websocket_messages_bytes",
                "Bytes held of WebSocket messages that are not complete.",
            ),
            unanswered: list.counter(
                "tidewire_websocket_unanswered_total",
                "Appends and requests of WebSockets that ended before they were answered; what was to be stored is stored all the same.",
            ),
        }
    }

    /// A request was answered. `route` is the route's pattern, never the path.
    pub fn answered(&self, route: &str, method: &str, status: u16, after: Duration) {
        self.requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
        self.request_seconds
            .with_label_values(&[route])
            .observe(after.as_secs_f64());
    }

    /// A connection began; it ends when what is returned is dropped.
    #[must_use]
    pub fn opened(&self, transport: Transport) -> Open {
        let count = self.open.of(transport).clone();
        count.inc();
        Open {
            count,
            lifetime: self.lifetime.of(transport).clone(),
            since: Instant::now(),
        }
    }

    /// So many connections may be open at once.
    pub fn set_limit(&self, connections: usize) {
        self.limit
            .set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// So many bytes may be held by sessions.
    pub fn set_sessions_limit(&self, bytes: usize) {
        self.sessions_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sessions held too much, and this was done about it.
    pub fn evicted(&self, what: Eviction) {
        let [idle, slow, refused] = &self.evicted;
        match what {
            Eviction::Idle => idle,
            Eviction::Slow => slow,
            Eviction::Refused => refused,
        }
        .inc();
    }

    /// A WebSocket ended while so much of what it had sent was not answered.
    pub fn unanswered(&self, count: usize) {
        self.unanswered
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// A WebSocket ended with this code.
    pub fn closed(&self, code: u16) {
        let code = CLOSE_CODES.iter().find(|(known, _)| *known == code);
        let label = code.map_or("other", |(_, label)| *label);
        self.closes.with_label_values(&[label]).inc();
    }
}

/// A connection that is open; counted until it is dropped.
#[derive(Debug)]
pub struct Open {
    count: IntGauge,
    lifetime: Histogram,
    since: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.dec();
        self.lifetime.observe(self.since.elapsed().as_secs_f64());
    }
}

/// The codes that a server or a well-behaved client ends a socket with; any other is `other`, since clients choose it.
const CLOSE_CODES: &[(u16, &str)] = &[
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1005, "1005"),
    (1006, "1006"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (4401, "4401"),
    (4403, "4403"),
    (4408, "4408"),
    (4429, "4429"),
];
