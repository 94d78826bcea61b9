//! `GET /metrics`: what Prometheus scrapes.
//!
//! # Invariants
//! - What only grows is counted where it happens; what can be asked is asked at the scrape.
//! - It speaks of the whole server, so administrators alone may read it, or whoever reaches the address of
//!   `--metrics-listen`.

use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tracing::Instrument as _;

use super::administrator::Administrator;
use super::app::App;
use super::guard::REQUEST_ID;
use super::ingest;
use super::status;
use crate::event::{Event, TraceParent};
use crate::feed::follow::Batch;
use crate::log::BreakerState;
use crate::log::wakeup::WakeUp;
use crate::telemetry::Transport;

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics` for administrators.
pub async fn get_metrics(State(app): State<App>, _: Administrator) -> Response {
    text(&app)
}

/// What stands at the address of `--metrics-listen`: metrics and probes, without credentials.
pub fn router(app: App) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State(app): State<App>| async move { text(&app) }),
        )
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .with_state(app)
}

fn text(app: &App) -> Response {
    collect(app);
    ([(header::CONTENT_TYPE, TEXT)], app.metrics.text()).into_response()
}

/// Each series with its value, of histograms how many they have counted and the sum.
#[must_use]
pub fn values(app: &App) -> serde_json::Value {
    collect(app);
    let values = app.metrics.values().into_iter();
    values
        .map(|(series, value)| (series, value.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Reads what is not counted but can be asked.
fn collect(app: &App) {
    let tail = app.hub.tail();
    let delivery = &app.metrics.delivery;
    let lag = tail.watermark.newest.saturating_sub(tail.watermark.safe);
    delivery.watermark_lag.set(lag);
    let held = tail.held_since.map(|since| since.elapsed());
    let held = held.unwrap_or_default().as_secs_f64();
    delivery.watermark_held.set(held);
    delivery.tail_up.set(i64::from(tail.is_up));
    let modes = WakeUp::ALL.map(WakeUp::as_str);
    delivery.set_notify_mode(&modes, tail.wake_up.as_str());
    let (subscriptions, events, bytes) = app.hub.size();
    delivery.subscriptions.set(whole(subscriptions));
    delivery.window_events.set(whole(events));
    delivery.window_bytes.set(whole(bytes));
    delivery.window_limit.set(whole(app.hub.limits().bytes));
    delivery.behind.set(whole(app.hub.behind()));
    let connections = &app.metrics.connections;
    let sessions = app.sessions.usage();
    connections.sessions_bytes.set(whole(sessions.bytes));
    connections.bodies_bytes.set(whole(app.bodies.taken()));
    connections.messages_bytes.set(whole(app.messages.taken()));
    app.appender.measure();
    let states = BreakerState::ALL.map(BreakerState::as_str);
    let now = app.appender.breaker().state().as_str();
    app.metrics.database.set_breaker(&states, now);
    for consumer in &app.consumers {
        consumer.measure(&app.metrics.consumers);
    }
    app.history.measure(&app.metrics.database);
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Counts each request by its route and its answer, and logs it for who asks for that (`tidewire::request=debug`).
pub async fn count(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("none", |path| path.as_str()).to_owned();
    let method = known(request.method().as_str());
    let traces = &app.metrics.traces;
    let span = traces.request(|| {
        let parent = ingest::traceparent(request.headers());
        parent.and_then(TraceParent::parse)
    });
    let response = match span {
        None => next.run(request).await,
        Some(span) => {
            request.extensions_mut().insert(span);
            // What is logged meanwhile says to which trace it belongs.
            let in_span = tracing::info_span!(
                "request",
                trace_id = format_args!("{:032x}", span.own.trace),
                span_id = format_args!("{:016x}", span.own.span)
            );
            let response = next.run(request).instrument(in_span).await;
            traces.answered(&span, method, &route, response.status().as_u16());
            response
        }
    };
    let (status, after) = (response.status().as_u16(), began.elapsed());
    let connections = &app.metrics.connections;
    connections.answered(&route, method, status, after);
    tracing::debug!(
        target: "tidewire::request",
        request_id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()),
        method,
        route,
        status,
        duration_ms = after.as_secs_f64() * 1e3,
        "answered"
    );
    response
}

/// A client may invent methods without end.
fn known(method: &str) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let known = METHODS.into_iter().find(|known| *known == method);
    known.unwrap_or("other")
}

/// Counts what a line has taken.
pub fn delivered(app: &App, transport: Transport, batch: &Batch) {
    let delivery = &app.metrics.delivery;
    delivery.count(transport, batch.events.len());
    if batch.was_live {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let age = |event: &Event| event.age(now, clock);
        for event in &batch.events {
            delivery.delivered(event.priority, transport, age(event));
            app.metrics.traces.delivered(event, transport);
        }
    }
}
