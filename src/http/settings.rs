//! `/v1/settings` and `/v1/topics`: what a tenant has decided about the events that it takes. For its administrators.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::TryFutureExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::administrator::Administrator;
use super::app::App;
use super::caller::{self, removed, while_held};
use super::credentials::{patterns, problem, read};
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::access::schema::{SCHEMA_BYTES_MAX, Schema};
use crate::access::settings::{Consent, TopicMode};
use crate::access::tenants::{Change, Declaration};
use crate::event::{Priority, TopicPattern};

/// Characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 1_024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    topic_mode: Option<String>,
    consent: Option<String>,
    consent_topics: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    schema: Option<Value>,
    in_sql: Option<String>,
    description: Option<String>,
    priority: Option<String>,
}

/// `GET /v1/settings`.
///
/// # Errors
/// 403, 429, 503.
pub async fn get(
    State(app): State<App>,
    Administrator(principal): Administrator,
) -> Result<Response, Problem> {
    let listing = app.access.registry().list_settings(&principal.tenant);
    let settings = while_held(&app, &principal, listing.map_err(problem)).await?;
    Ok(Json(settings).into_response())
}

/// `PATCH /v1/settings`: what is not named stays.
///
/// # Errors
/// 400, 403, 429, 503.
pub async fn patch(
    State(app): State<App>,
    Administrator(principal): Administrator,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: Wanted = read(&app, &principal, request).await?;
    let unknown =
        |field: &str, known: &str| Problem::parameter(field, format_args!("must be {known}"));
    let mode = wanted.topic_mode.map(|text| {
        TopicMode::parse(&text).ok_or_else(|| unknown("topic_mode", "open or declared"))
    });
    let consent = wanted.consent.map(|text| {
        Consent::parse(&text).ok_or_else(|| unknown("consent", "optional, withhold or require"))
    });
    let topics = wanted
        .consent_topics
        .map(|texts| patterns("consent_topics", &texts))
        .transpose()?;
    if topics.as_ref().is_some_and(Vec::is_empty) {
        return Err(Problem::parameter(
            "consent_topics",
            "must name a topic pattern; \"*\" stands for all",
        ));
    }
    let change = Change {
        topic_mode: mode.transpose()?,
        consent: consent.transpose()?,
        consent_topics: topics,
    };
    may_change(&principal, &TopicPattern::any())?;
    let lease = caller::lease(&app, &principal).await?;
    let (registry, tenant) = (app.access.registry(), &principal.tenant);
    let changed = registry.change_settings(tenant, &change, principal.name.as_str(), &lease);
    changed.await.map_err(problem)?;
    let listing = registry.list_settings(tenant).map_err(problem);
    let settings = caller::under(&lease, listing).await?;
    Ok(Json(settings).into_response())
}

/// `GET /v1/topics`.
///
/// # Errors
/// 403, 429, 503.
pub async fn list(
    State(app): State<App>,
    Administrator(principal): Administrator,
) -> Result<Response, Problem> {
    let listing = app.access.registry().list_topics(&principal.tenant);
    let topics = while_held(&app, &principal, listing.map_err(problem)).await?;
    Ok(Json(json!({ "topics": topics })).into_response())
}

/// `PUT /v1/topics/{pattern}`.
///
/// # Errors
/// 400, 403, 429, 409 if the tenant has declared too many, 413, 422 for what is no schema, 503.
pub async fn declare(
    State(app): State<App>,
    Administrator(principal): Administrator,
    pattern: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(pattern) = pattern?;
    let pattern =
        TopicPattern::parse(&pattern).map_err(|error| Problem::parameter("pattern", error))?;
    if pattern.is_kept() {
        return Err(Problem::parameter(
            "pattern",
            "topics under tidewire. are the log's own, and those under system. are not stored",
        ));
    }
    let wanted: Declared = read(&app, &principal, request).await?;
    let in_sql = wanted.in_sql.as_deref().unwrap_or("refuse");
    if !matches!(in_sql, "refuse" | "unchecked") {
        return Err(Problem::parameter("in_sql", "must be refuse or unchecked"));
    }
    if wanted
        .description
        .as_ref()
        .is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX || text.contains('\0'))
    {
        return Err(Problem::parameter(
            "description",
            format_args!("is at most {DESCRIPTION_CHARS_MAX} characters, none of them NUL"),
        ));
    }
    let priority = wanted.priority.as_deref().map(|text| {
        let refused = || Problem::parameter("priority", "must be critical, high, normal or low");
        Priority::parse(text).ok_or_else(refused)
    });
    let priority = priority.transpose()?;
    let lease = caller::lease(&app, &principal).await?;
    let schema = match wanted.schema {
        Some(schema) => {
            check_length(&schema)?;
            // To make one ready takes long.
            let check = move || check(&schema).map(|()| schema);
            let checking = app.checks.run_soon(&principal.tenant, check);
            Some(caller::under(&lease, checking).await??)
        }
        None => None,
    };
    may_change(&principal, &pattern)?;
    let declaration = Declaration {
        pattern,
        schema,
        is_unchecked_in_sql: in_sql == "unchecked",
        description: wanted.description,
        priority,
    };
    let (registry, by) = (app.access.registry(), principal.name.as_str());
    let declared = registry.declare_topic(&principal.tenant, &declaration, by, &lease);
    declared.await.map_err(problem)?;
    caller::check(&lease)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Nobody decides about topics that they may not write themselves.
fn may_change(principal: &Principal, pattern: &TopicPattern) -> Result<(), Problem> {
    let own = principal.may_grant(&[], std::slice::from_ref(pattern));
    own.map_err(|pattern| {
        let detail =
            format!("this credential may not write {pattern}, so it does not decide about it");
        Problem::new(Kind::ForbiddenTopic, detail)
    })
}

fn refused(reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidSchema, format!("schema: {reason}"))
}

fn check_length(schema: &Value) -> Result<(), Problem> {
    let text = schema.to_string();
    // As PostgreSQL prints it: with a space after each colon and comma.
    let length = text
        .len()
        .saturating_add(text.bytes().filter(|b| matches!(b, b':' | b',')).count());
    if length > SCHEMA_BYTES_MAX {
        return Err(refused(&format_args!(
            "is longer than {SCHEMA_BYTES_MAX} bytes"
        )));
    }
    if text.contains("\\u0000") {
        return Err(refused(&"holds \\u0000, which cannot be stored"));
    }
    Ok(())
}

fn check(schema: &Value) -> Result<(), Problem> {
    let made = Schema::new(schema).map(drop);
    made.map_err(|error| refused(&error))
}

/// `DELETE /v1/topics/{pattern}`.
///
/// # Errors
/// 403, 404, 429, 503.
pub async fn withdraw(
    State(app): State<App>,
    Administrator(principal): Administrator,
    pattern: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(pattern) = pattern?;
    let missing = || Problem::new(Kind::NotFound, "the tenant has not declared this pattern");
    let pattern = TopicPattern::parse(&pattern).map_err(|_| missing())?;
    may_change(&principal, &pattern)?;
    let lease = caller::lease(&app, &principal).await?;
    let (registry, by) = (app.access.registry(), principal.name.as_str());
    let withdrawn = registry.withdraw_topic(&principal.tenant, &pattern, by, &lease);
    let was_there = withdrawn.await.map_err(problem)?;
    caller::check(&lease)?;
    removed(was_there, missing)
}
