//! `/v1/subjects/{subject}`: what is held of a person, and its erasure from history. For administrators, of their own tenant.
//!
//! # Invariants
//! - Nothing is answered or erased of which the tenant's log does not say who asked.
//! - Both end with the caller's credential, and are ended in the database; batches that were erased before stay erased.
//! - An answer says that all is erased only when this server holds nothing of it any more either; the others follow within
//!   a second.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::administrator::{Administrator, Asking};
use super::app::App;
use super::caller::while_held;
use super::credentials;
use super::errors;
use super::params;
use super::problem::{Kind, Problem};
use super::read::join_json;
use crate::access::Principal;
use crate::event::limits::{PAGE_EVENTS, PAGE_EVENTS_MAX};
use crate::event::{Filter, Label, Position, TopicPattern};
use crate::feed::Start;
use crate::log::read::Query;
use crate::log::{Page, ReadError};

/// How long a request erases before it says that there is more.
const ERASING_MAX: Duration = Duration::from_secs(5);
/// When to ask again, in seconds.
const AGAIN_S: &str = "1";

/// Which of the person's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// Those about it.
    #[default]
    Subject,
    /// Those it produced about others.
    Source,
}

/// The query of a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    after: Option<String>,
    limit: Option<String>,
    #[serde(default)]
    part: Part,
}

/// What a request has erased.
#[derive(Debug, Serialize)]
struct Answer {
    events: u64,
    is_complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `GET /v1/subjects/{subject}`.
///
/// # Errors
/// 400, 403, 429, 409, 410, 503.
pub async fn get(
    State(app): State<App>,
    Asking(principal, wanted): Asking<Wanted>,
    subject: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let subject = subject_of(subject)?;
    let all = [TopicPattern::any()];
    principal.may_grant(&all, &[]).map_err(|_| too_narrow())?;
    let limit = limit(wanted.limit.as_deref())?;
    let after = after(&app, &principal, wanted.after.as_deref())?;
    let held = held(&app, &principal, &subject, (wanted.part, after, limit));
    let body = while_held(&app, &principal, Box::pin(held)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// What is held, as the answer has it.
async fn held(
    app: &App,
    principal: &Principal,
    subject: &Label,
    (part, after, limit): (Part, Position, usize),
) -> Result<Vec<u8>, Problem> {
    let failed = |error: ReadError| errors::follow(&error.into(), app.hub.identity());
    let asked = app
        .history
        .summary(&principal.tenant, subject, &principal.name);
    let summary = asked.await.map_err(failed)?;
    let up_to = app.hub.head();
    let page = match part {
        Part::Subject => about(app, principal, subject, after, up_to, limit).await,
        Part::Source => {
            let history = &app.history;
            let tenant = &principal.tenant;
            history.produced(tenant, subject, after, up_to, limit).await
        }
    };
    let page = page.map_err(failed)?;
    let registry = app.access.registry();
    let credentials = registry.bearing(&principal.tenant, subject).await;
    let credentials = json!(credentials.map_err(credentials::problem)?);
    let watched = app.history.watched(&principal.tenant, subject).await;
    let watched: Vec<_> = watched
        .map_err(failed)?
        .iter()
        .map(|one| {
            json!({
                "watch": one.watch,
                "last_seen_at": one.last_seen_at,
                "last_cursor": app.hub.identity().encode(one.last),
                "is_stalled": one.is_stalled,
                "since": one.since,
            })
        })
        .collect();
    let (held, watched) = (json!(summary), json!(watched));
    let cursor = app.hub.identity().encode(page.through.max(after));
    let mut body = format!(
        "{{\"subject\":{},\"held\":{held},\"credentials\":{credentials},\"watched\":{watched},\"events\":[",
        json!(subject.as_str())
    )
    .into_bytes();
    join_json(&mut body, &page.events);
    let end = format!("],\"cursor\":\"{cursor}\",\"has_more\":{}}}", page.has_more);
    body.extend_from_slice(end.as_bytes());
    Ok(body)
}

/// The events about the subject, the log's own included.
async fn about(
    app: &App,
    principal: &Principal,
    subject: &Label,
    after: Position,
    up_to: Position,
    limit: usize,
) -> Result<Page, ReadError> {
    if after.seq >= up_to.seq {
        return Ok(Page {
            events: Vec::new(),
            through: after,
            has_more: false,
        });
    }
    let query = Query {
        tenant: principal.tenant.clone(),
        filter: Filter::all_of(subject.clone()),
        after,
        up_to,
        limit,
    };
    app.history.page_in_turn(&query).await
}

/// `DELETE /v1/subjects/{subject}`: 200 when nothing is left, 202 when the request is to be repeated.
///
/// # Errors
/// 400, 403, 429, 503.
pub async fn erase(
    State(app): State<App>,
    Administrator(principal): Administrator,
    subject: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let subject = subject_of(subject)?;
    let all = [TopicPattern::any()];
    principal.may_grant(&[], &all).map_err(|_| too_narrow())?;
    let answer = while_held(&app, &principal, erasing(&app, &principal, &subject)).await?;
    Ok(if answer.is_complete {
        Json(answer).into_response()
    } else {
        let again = [(header::RETRY_AFTER, AGAIN_S)];
        (StatusCode::ACCEPTED, again, Json(answer)).into_response()
    })
}

/// Erases for a while.
async fn erasing(app: &App, principal: &Principal, subject: &Label) -> Result<Answer, Problem> {
    let began = Instant::now();
    let (mut events, mut told_at) = (0_u64, None);
    loop {
        let erasing = app
            .history
            .erase(&principal.tenant, subject, &principal.name);
        let erased = erasing
            .await
            .map_err(|error| errors::follow(&error.into(), app.hub.identity()))?;
        if let Some(through) = erased.through {
            app.hub.forget(&principal.tenant, through);
        }
        events = events.saturating_add(erased.events);
        told_at = erased.told_at.or(told_at);
        let is_late = began.elapsed() >= ERASING_MAX;
        if !erased.is_complete && !is_late {
            continue;
        }
        return Ok(Answer {
            events,
            is_complete: erased.is_complete,
            cursor: told_at.map(|position| app.hub.identity().encode(position)),
        });
    }
}

fn too_narrow() -> Problem {
    Problem::new(
        Kind::ForbiddenTopic,
        "this is about events of all topics, of which this credential does not cover all: reading needs read *, erasing write *",
    )
}

fn subject_of(path: Result<Path<String>, PathRejection>) -> Result<Label, Problem> {
    let refused = |reason: &dyn std::fmt::Display| Problem::parameter("subject", reason);
    let Path(text) = path.map_err(|error| refused(&error.body_text()))?;
    Label::parse(&text).map_err(|error| refused(&error))
}

fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else {
        return Ok(PAGE_EVENTS);
    };
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=PAGE_EVENTS_MAX).contains(limit))
        .ok_or_else(|| Problem::parameter("limit", format_args!("must be 1 to {PAGE_EVENTS_MAX}")))
}

fn after(app: &App, principal: &Principal, text: Option<&str>) -> Result<Position, Problem> {
    match params::start(text.unwrap_or("earliest"), app.hub.identity())? {
        Start::After(cursor) => Ok(cursor.position),
        Start::Earliest => Ok(app.hub.identity().known().retained_of(&principal.tenant)),
        Start::Latest | Start::Since(_) => Err(Problem::parameter(
            "after",
            "must be earliest or a cursor of an answer",
        )),
    }
}
