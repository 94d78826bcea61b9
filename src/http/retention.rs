//! `/v1/retention`: how many days a tenant keeps which topics. For administrators, of their own tenant.
//!
//! # Invariants
//! - Nobody sets a rule for topics that they may not write; of the log's own topics administrators decide, within bounds.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryFutureExt as _;
use serde::Deserialize;
use serde_json::json;

use super::administrator::Administrator;
use super::app::App;
use super::caller::{removed, while_held};
use super::credentials::read;
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::event::TopicPattern;
use crate::event::limits::RULES_MAX;
use crate::log::ReadError;

const DAYS_MAX: i32 = 36_500;
/// The log's own topics say who did what: nobody wipes that away at once.
const AUDIT_DAYS_MIN: i32 = 365;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRule {
    days: i32,
}

/// `GET /v1/retention`.
///
/// # Errors
/// 403, 429, 503.
pub async fn list(
    State(app): State<App>,
    Administrator(principal): Administrator,
) -> Result<Response, Problem> {
    let listing = app.history.rules(&principal.tenant);
    let listing = listing.map_err(|error| problem(&app, error));
    let rules = while_held(&app, &principal, listing).await?;
    Ok(Json(json!({ "rules": rules })).into_response())
}

/// `PUT /v1/retention/{pattern}`: `{"days":30}`.
///
/// # Errors
/// 400, 403, 429, 409 if the tenant has too many, 503.
pub async fn set(
    State(app): State<App>,
    Administrator(principal): Administrator,
    pattern: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let pattern = own_pattern(&principal, pattern)?;
    let NewRule { days } = read(&app, &principal, request).await?;
    let days_min = if pattern.is_reserved() {
        AUDIT_DAYS_MIN
    } else {
        1
    };
    if !(days_min..=DAYS_MAX).contains(&days) {
        let range = format!("must be {days_min} to {DAYS_MAX}");
        return Err(Problem::parameter("days", range));
    }
    let setting = app
        .history
        .set_rule(&principal.tenant, &pattern, days, &principal.name);
    let setting = setting.map_err(|error| problem(&app, error));
    match while_held(&app, &principal, setting).await? {
        Some(rule) => Ok(Json(rule).into_response()),
        None => Err(Problem::new(
            Kind::TooMany,
            format!("the tenant has {RULES_MAX} rules, which is as many as it may have"),
        )),
    }
}

/// `DELETE /v1/retention/{pattern}`.
///
/// # Errors
/// 400, 403, 429, 404, 503.
pub async fn remove(
    State(app): State<App>,
    Administrator(principal): Administrator,
    pattern: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let pattern = own_pattern(&principal, pattern)?;
    let removing = app
        .history
        .remove_rule(&principal.tenant, &pattern, &principal.name);
    let removing = removing.map_err(|error| problem(&app, error));
    let missing = || {
        let detail = "the tenant has no rule for this pattern";
        Problem::new(Kind::NotFound, detail)
    };
    removed(while_held(&app, &principal, removing).await?, missing)
}

fn own_pattern(
    principal: &Principal,
    path: Result<Path<String>, PathRejection>,
) -> Result<TopicPattern, Problem> {
    let refused = |reason: &dyn std::fmt::Display| Problem::parameter("pattern", reason);
    let Path(text) = path.map_err(|error| refused(&error.body_text()))?;
    let pattern = TopicPattern::parse(&text).map_err(|error| refused(&error))?;
    let wanted = std::slice::from_ref(&pattern);
    if !pattern.is_reserved() && principal.may_grant(&[], wanted).is_err() {
        let detail = format!("this credential may not write {pattern}");
        return Err(Problem::new(Kind::ForbiddenTopic, detail));
    }
    Ok(pattern)
}

fn problem(app: &App, error: ReadError) -> Problem {
    errors::follow(&error.into(), app.hub.identity())
}
