//! `/v1/watches`: of whom a tenant expects to hear, and how often. For administrators, of their own tenant.
//!
//! # Invariants
//! - Nobody sets, sees or removes a watch of topics that they may not read: it tells of their subjects.
//! - The log's own topics are no signs of life.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryFutureExt as _;
use serde::Deserialize;
use serde_json::json;

use super::administrator::{Administrator, Asking};
use super::app::App;
use super::caller::{removed, while_held};
use super::credentials::read;
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::event::limits::{
    SHORT_NAME_BYTES_MAX, WATCH_TOPICS_MAX, WATCH_WITHIN_S_MAX, WATCHES_MAX,
};
use crate::event::{Tenant, TopicPattern};
use crate::log::ReadError;
use crate::log::watches::{Shown, Watch, Withheld};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWatch {
    topics: Vec<String>,
    within_s: i32,
}

/// Where the list of those who have stalled goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterSubject {
    #[serde(default)]
    after: String,
}

/// `GET /v1/watches`.
///
/// # Errors
/// 403, 429, 503.
pub async fn list(
    State(app): State<App>,
    Administrator(principal): Administrator,
) -> Result<Response, Problem> {
    let listing = app.history.watches(&principal.tenant);
    let listing = listing.map_err(|error| problem(&app, error));
    let mut watches = while_held(&app, &principal, listing).await?;
    watches.retain(|watch| may_see(&principal, watch).is_ok());
    Ok(Json(json!({ "watches": watches })).into_response())
}

/// `GET /v1/watches/{name}`: it, and who has stalled.
///
/// # Errors
/// 400, 403, 404, 429, 503.
pub async fn get(
    State(app): State<App>,
    Asking(principal, from): Asking<AfterSubject>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let name = name(path)?;
    let shown = own(&app, &principal, &name, &from.after).await?;
    let identity = app.hub.identity();
    let stalled: Vec<_> = shown
        .stalled
        .iter()
        .map(|one| {
            json!({
                "subject": one.subject,
                "last_seen_at": one.last_seen_at,
                "last_cursor": identity.encode(one.last),
                "since": one.since,
            })
        })
        .collect();
    let mut answer = serde_json::to_value(&shown.watch).unwrap_or_default();
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("subjects".into(), json!(shown.subjects));
        answer.insert("is_full".into(), json!(shown.is_full()));
        answer.insert("stalled_subjects".into(), json!(shown.stalled_subjects));
        answer.insert("stalled".into(), json!(stalled));
        answer.insert("has_more".into(), json!(shown.has_more));
    }
    Ok(Json(answer).into_response())
}

/// `PUT /v1/watches/{name}`: `{"topics":["agent.heartbeat.*"],"within_s":60}`.
///
/// # Errors
/// 400, 403, 429, 409 if the tenant has too many, 503.
pub async fn set(
    State(app): State<App>,
    Administrator(principal): Administrator,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let name = name(path)?;
    let wanted: NewWatch = read(&app, &principal, request).await?;
    let topics = topics(&wanted.topics)?;
    may_watch(&principal, &topics)?;
    if !(1..=WATCH_WITHIN_S_MAX).contains(&wanted.within_s) {
        let range = format!("must be 1 to {WATCH_WITHIN_S_MAX}");
        return Err(Problem::parameter("within_s", range));
    }
    let setting = app.history.set_watch(
        &principal.tenant,
        &name,
        (&topics, wanted.within_s),
        &principal.name,
        |watch| may_see(&principal, watch).is_ok(),
    );
    let setting = setting.map_err(|error| problem(&app, error));
    let set = while_held(&app, &principal, setting).await?;
    match set.map_err(withheld)? {
        Some(watch) => Ok(Json(watch).into_response()),
        None => Err(Problem::new(
            Kind::TooMany,
            format!("the tenant has {WATCHES_MAX} watches, which is as many as it may have"),
        )),
    }
}

/// `DELETE /v1/watches/{name}`.
///
/// # Errors
/// 400, 403, 429, 404, 503.
pub async fn remove(
    State(app): State<App>,
    Administrator(principal): Administrator,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let name = name(path)?;
    let may_change = |watch: &Watch| may_see(&principal, watch).is_ok();
    let removing = app
        .history
        .remove_watch(&principal.tenant, &name, &principal.name, may_change);
    let removing = removing.map_err(|error| problem(&app, error));
    let has_removed = while_held(&app, &principal, removing).await?;
    removed(has_removed.map_err(withheld)?, missing)
}

/// The tenant's watch of this name, if the credential may read what it tells of.
async fn own(app: &App, principal: &Principal, name: &str, after: &str) -> Result<Shown, Problem> {
    let reading = app.history.watch(&principal.tenant, name, after);
    let reading = reading.map_err(|error| problem(app, error));
    let shown = while_held(app, principal, reading).await?;
    let shown = shown.ok_or_else(missing)?;
    may_see(principal, &shown.watch)?;
    Ok(shown)
}

/// Whether the credential may read what a watch tells of.
fn may_see(principal: &Principal, watch: &Watch) -> Result<(), Problem> {
    // What somebody has written in SQL that is no pattern stands for nothing.
    let parsed = watch.topics.iter().map(|text| TopicPattern::parse(text));
    let topics: Vec<_> = parsed.filter_map(Result::ok).collect();
    may_watch(principal, &topics)
}

fn withheld(_: Withheld) -> Problem {
    let detail = "this credential may not read what the watch of this name tells of";
    Problem::new(Kind::ForbiddenTopic, detail)
}

fn topics(texts: &[String]) -> Result<Vec<TopicPattern>, Problem> {
    if !(1..=WATCH_TOPICS_MAX).contains(&texts.len()) {
        let range = format!("must be 1 to {WATCH_TOPICS_MAX} patterns");
        return Err(Problem::parameter("topics", range));
    }
    let parse = |text: &String| {
        TopicPattern::parse(text).map_err(|error| Problem::parameter("topics", error))
    };
    let topics = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if topics.iter().any(TopicPattern::is_reserved) {
        let reason = "topics under tidewire. are no signs of life";
        return Err(Problem::parameter("topics", reason));
    }
    Ok(topics)
}

fn may_watch(principal: &Principal, topics: &[TopicPattern]) -> Result<(), Problem> {
    principal.may_grant(topics, &[]).map_err(|pattern| {
        let detail = format!("this credential may not read {pattern}");
        Problem::new(Kind::ForbiddenTopic, detail)
    })
}

/// What a tenant's name may be, a watch's may be.
fn name(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let refused = |reason: &dyn std::fmt::Display| Problem::parameter("name", reason);
    let Path(text) = path.map_err(|error| refused(&error.body_text()))?;
    const { assert!(SHORT_NAME_BYTES_MAX == 64) };
    Tenant::parse(&text).map_err(|error| refused(&error))?;
    Ok(text)
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "the tenant has no watch of this name")
}

fn problem(app: &App, error: ReadError) -> Problem {
    errors::follow(&error.into(), app.hub.identity())
}
