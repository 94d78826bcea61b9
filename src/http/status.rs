//! `GET /v1/status`, `/livez` and `/readyz`: how the server and its log are.
//!
//! # Invariants
//! - Alive means that the process answers: a database that is away must not restart it. Ready means that events are read, and that
//!   credentials are looked up: revocations are heard of, and keys that come are let in.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::administrator::{self, Administrator};
use super::admission::Admission;
use super::app::App;
use super::caller::while_held;
use super::errors;
use super::health::{self, Issue, Latency, Observed};
use super::problem::Problem;
use super::sessions::Usage;
use crate::access::Principal;
use crate::consume::Standing;
use crate::event::ByPriority;
use crate::feed::Hub;
use crate::log::status::{Database, Holder};
use crate::log::wakeup::WakeUp;
use crate::log::{Breaker, ReadError, Trouble};

/// How the server and its log are.
#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    uptime_s: u64,
    mode: &'static str,
    health: u8,
    issues: Vec<Issue>,
    log: LogStatus,
    window: WindowStatus,
    sessions: SessionStatus,
    readers: ReaderStatus,
    append_queue: QueueStatus,
    /// From receipt to reader in the last minute, by priority; null where too little was delivered to say.
    latency: ByPriority<Option<Latency>>,
    breaker: BreakerStatus,
    consumers: Vec<ConsumerStatus>,
    bodies: HeldStatus,
    messages: HeldStatus,
    /// What changes only with the settings is said to who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<Database>,
}

#[derive(Debug, Serialize)]
struct LogStatus {
    cursor: String,
    newest: i64,
    watermark: i64,
    lag_events: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_by: Option<Holder>,
    wake_up: &'static str,
    wake_up_reason: &'static str,
    tail_is_up: bool,
}

impl LogStatus {
    fn of(hub: &Hub, held_by: Option<Holder>) -> Self {
        let tail = hub.tail();
        let watermark = tail.watermark;
        Self {
            cursor: hub.identity().encode(watermark.position),
            newest: watermark.newest,
            watermark: watermark.safe,
            lag_events: watermark.newest.saturating_sub(watermark.safe),
            held_by,
            wake_up: tail.wake_up.as_str(),
            wake_up_reason: match tail.wake_up {
                WakeUp::Asleep => "little is written: every writer notifies",
                WakeUp::Awake => {
                    "much is written: the server looks by itself, writers need not notify"
                }
                WakeUp::Polling => {
                    "no LISTEN connection, or notify=never: the server looks by itself"
                }
            },
            tail_is_up: tail.is_up,
        }
    }
}

#[derive(Debug, Serialize)]
struct WindowStatus {
    events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
}

/// What sessions hold; `evicted` since the server began.
#[derive(Debug, Serialize)]
struct SessionStatus {
    sessions: usize,
    bytes: usize,
    bytes_max: usize,
    evicted: EvictedStatus,
}

#[derive(Debug, Serialize)]
struct EvictedStatus {
    idle: u64,
    slow: u64,
    refused: u64,
}

impl SessionStatus {
    const fn of(usage: Usage) -> Self {
        Self {
            sessions: usage.sessions,
            bytes: usage.bytes,
            bytes_max: usage.bytes_max,
            evicted: EvictedStatus {
                idle: usage.idle,
                slow: usage.slow,
                refused: usage.refused,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct ReaderStatus {
    connections: usize,
    subscriptions: usize,
}

#[derive(Debug, Serialize)]
struct QueueStatus {
    requests: usize,
    by_priority: ByPriority<usize>,
    batch_limit: usize,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct HeldStatus {
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct ConsumerStatus {
    name: &'static str,
    is_active: bool,
    is_paused: bool,
    /// Where this server runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_events: Option<i64>,
}

impl ConsumerStatus {
    fn of(standing: &Standing) -> Self {
        Self {
            name: standing.name(),
            is_active: standing.is_active(),
            is_paused: standing.is_paused(),
            lag_events: standing.lag_events(),
        }
    }
}

#[derive(Debug, Serialize)]
struct BreakerStatus {
    state: &'static str,
    /// While it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<f64>,
    /// Whether the database is away, or only takes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'static str>,
}

impl BreakerStatus {
    fn of(breaker: &Breaker) -> Self {
        let tripped = breaker.open_for(Instant::now());
        Self {
            state: breaker.state().as_str(),
            retry_after_s: tripped.map(|tripped| tripped.retry_after.as_secs_f64()),
            trouble: breaker.trouble().map(Trouble::as_str),
        }
    }
}

/// `GET /livez`.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`.
pub async fn readyz(State(app): State<App>) -> Response {
    if app.drain.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response()
    } else if !app.hub.tail().is_up {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer\n",
        )
            .into_response()
    } else if app.access.registry().late().is_some() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "credentials cannot be looked up\n",
        )
            .into_response()
    } else {
        "ok\n".into_response()
    }
}

/// `GET /v1/status`.
///
/// # Errors
/// 403 for those who are not administrators: it speaks of the whole server.
pub async fn get(
    State(app): State<App>,
    Administrator(principal): Administrator,
) -> Result<Response, Problem> {
    let status = while_held(&app, &principal, status(&app, &principal)).await?;
    Ok(Json(status).into_response())
}

/// The answer to `get_status`.
pub async fn frame(
    app: &App,
    principal: &Principal,
    admission: &Admission,
) -> Result<serde_json::Value, Problem> {
    administrator::admit(principal, admission)?;
    let status = status(app, principal).await?;
    let mut frame = serde_json::to_value(status).unwrap_or_default();
    if let Some(frame) = frame.as_object_mut() {
        frame.insert("type".into(), "status".into());
    }
    Ok(frame)
}

async fn status(app: &App, principal: &Principal) -> Result<Status, Problem> {
    let asked = crate::log::status::ask(&app.history, &principal.tenant).await;
    let (database, held_by) = match asked {
        Ok((database, holder)) => (Some(database), holder),
        Err(ReadError::Crowded) => return Err(errors::crowded()),
        Err(_) => (None, None),
    };
    let limits = Some(app.in_force.clone());
    Ok(Status {
        limits,
        ..of(app, database, held_by)
    })
}

/// How everything is, with what the database has said: nothing if it does not answer.
#[must_use]
pub fn of(app: &App, database: Option<Database>, held_by: Option<Holder>) -> Status {
    let observed = Observed {
        database,
        held_by,
        latency: app.pulse.latency(),
    };
    let issues = health::issues(app, &observed);
    let Observed {
        database,
        held_by,
        latency,
    } = observed;
    let (subscriptions, events, bytes) = app.hub.size();
    let (requests, queued_bytes) = app.appender.waiting();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.started.elapsed().as_secs(),
        mode: if app.access.is_development() {
            "development"
        } else {
            "production"
        },
        health: health::score(&issues),
        issues,
        log: LogStatus::of(&app.hub, held_by),
        window: WindowStatus {
            events,
            bytes,
            events_max: app.hub.limits().events,
            bytes_max: app.hub.limits().bytes,
        },
        sessions: SessionStatus::of(app.sessions.usage()),
        readers: ReaderStatus {
            connections: app.connections(),
            subscriptions,
        },
        append_queue: QueueStatus {
            requests,
            by_priority: app.appender.by_priority(),
            batch_limit: app.appender.batch_limit(),
            bytes: queued_bytes,
        },
        latency,
        breaker: BreakerStatus::of(app.appender.breaker()),
        consumers: app.consumers.iter().map(ConsumerStatus::of).collect(),
        bodies: HeldStatus {
            bytes: app.bodies.taken(),
        },
        messages: HeldStatus {
            bytes: app.messages.taken(),
        },
        limits: None,
        database,
    }
}
