//! `GET /v1/status`, `/livez` and `/readyz`: how the server and its log are.
//!
//! # Invariants
//! - Alive means that the process answers: a database that is away must not restart it. Ready means that events are read, and that
//!   credentials are looked up: revocations are heard of, and keys that come are let in.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::administrator::{self, Administrator};
use super::admission::Admission;
use super::app::App;
use super::errors;
use super::problem::Problem;
use crate::access::Principal;
use crate::access::looks::{Cause, Late};
use crate::log::ReadError;
use crate::log::status::{Database, Holder};
use crate::log::wakeup::WakeUp;

/// A watermark that is held back by more events than this is worth a word.
const LAG_EVENTS: i64 = 10_000;
/// And so is a transaction that holds it back for longer than this.
const HELD_S: f64 = 10.0;

/// Something that an operator should know.
#[derive(Debug, Serialize)]
struct Issue {
    code: &'static str,
    /// What is the matter, and what to do.
    advice: String,
    /// Taken off the health score.
    weight: u8,
}

#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    uptime_s: u64,
    mode: &'static str,
    health: u8,
    issues: Vec<Issue>,
    log: LogStatus,
    window: WindowStatus,
    readers: ReaderStatus,
    append_queue: QueueStatus,
    bodies: HeldStatus,
    messages: HeldStatus,
    limits: serde_json::Value,
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

#[derive(Debug, Serialize)]
struct WindowStatus {
    events: usize,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct ReaderStatus {
    connections: usize,
    subscriptions: usize,
}

#[derive(Debug, Serialize)]
struct QueueStatus {
    requests: usize,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct HeldStatus {
    bytes: usize,
}

/// `GET /livez`.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`.
pub async fn readyz(State(app): State<App>) -> Response {
    if app.tasks.token().is_cancelled() {
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
    Ok(Json(status(&app, &principal).await?).into_response())
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
    let tail = app.hub.tail();
    let (subscriptions, events, bytes) = app.hub.size();
    let (requests, queued_bytes) = app.appender.waiting();
    let (wake_up, wake_up_reason) = match tail.wake_up {
        WakeUp::Asleep => ("asleep", "little is written: every writer notifies"),
        WakeUp::Awake => (
            "awake",
            "much is written: the server looks by itself, writers need not notify",
        ),
        WakeUp::Polling => (
            "polling",
            "no LISTEN connection, or notify=never: the server looks by itself",
        ),
    };
    let position = tail.watermark.position;
    let log = LogStatus {
        cursor: app.hub.identity().encode(position),
        newest: tail.watermark.newest,
        watermark: tail.watermark.safe,
        lag_events: tail.watermark.newest.saturating_sub(tail.watermark.safe),
        held_by,
        wake_up,
        wake_up_reason,
        tail_is_up: tail.is_up,
    };
    let mut issues = issues(&log, database.as_ref());
    issues.extend(app.access.registry().late().map(unlooked));
    let lost: u8 = issues
        .iter()
        .fold(0, |sum, issue| sum.saturating_add(issue.weight));
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: app.started.elapsed().as_secs(),
        mode: if app.access.is_development() {
            "development"
        } else {
            "production"
        },
        health: 100_u8.saturating_sub(lost),
        issues,
        log,
        window: WindowStatus { events, bytes },
        readers: ReaderStatus {
            connections: app.connections(),
            subscriptions,
        },
        append_queue: QueueStatus {
            requests,
            bytes: queued_bytes,
        },
        bodies: HeldStatus {
            bytes: app.bodies.taken(),
        },
        messages: HeldStatus {
            bytes: app.messages.taken(),
        },
        limits: app.in_force.clone(),
        database,
    })
}

/// Credentials have not been looked up for some time.
fn unlooked(late: Late) -> Issue {
    let (cause, remedy) = match late.cause {
        Cause::NoConnection => (
            "no connection can be opened".to_owned(),
            "see the server's log, DATABASE_URL and max_connections",
        ),
        Cause::Silent => (
            "the database does not answer".to_owned(),
            "see its log, and what pg_stat_activity says of \"tidewire credentials\"",
        ),
        Cause::Locked => (
            "a transaction holds a table of credentials, or the database is too slow".to_owned(),
            "see pg_locks for who is before \"tidewire credentials\", and end it",
        ),
        Cause::Refused(code) => (
            format!("the database refuses, with SQLSTATE {code}"),
            "see the server's log, and run `tidewire migrate --definitions`",
        ),
    };
    Issue {
        code: "credentials-late",
        advice: format!(
            "credentials have not been looked up for {} s: {cause}. Revocations are not heard of, and keys and settings that are not known are 503: {remedy}",
            late.by.as_secs(),
        ),
        weight: 60,
    }
}

fn issues(log: &LogStatus, database: Option<&Database>) -> Vec<Issue> {
    let mut issues = Vec::new();
    if !log.tail_is_up || database.is_none() {
        let advice = "the database does not answer: see its log and DATABASE_URL".to_owned();
        issues.push(Issue {
            code: "database-down",
            advice,
            weight: 60,
        });
    }
    if log.lag_events > LAG_EVENTS {
        let advice = format!(
            "{} events are held back: see log.held_by and the view tidewire.writers",
            log.lag_events
        );
        issues.push(Issue {
            code: "watermark-lag",
            advice,
            weight: 20,
        });
    }
    if let Some(holder) = log
        .held_by
        .as_ref()
        .filter(|holder| holder.open_s.is_some_and(|s| s > HELD_S))
    {
        let advice = match holder.pid {
            Some(pid) => format!("a transaction that wrote events is still open and holds readers back: commit it, or SELECT pg_terminate_backend({pid})"),
            None => "a prepared transaction that wrote events holds readers back: COMMIT PREPARED or ROLLBACK PREPARED it".to_owned(),
        };
        issues.push(Issue {
            code: "open-writer",
            advice,
            weight: 20,
        });
    }
    if database.is_some_and(|database| database.notification_queue_usage > 0.5) {
        let advice =
            "the NOTIFY queue is more than half full: a session that listens sits in a transaction"
                .to_owned();
        issues.push(Issue {
            code: "notify-queue",
            advice,
            weight: 20,
        });
    }
    issues
}
