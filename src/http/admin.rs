//! `/v1/admin`: what operators do to this server, and administrators to what is their tenant's.
//!
//! # Invariants
//! - What touches all tenants is for administrators of the operators' tenant alone (`--operator-tenant`), or anybody's in
//!   development.
//! - Who did what stands in the operators' own log: as soon as the database takes it, and what is done in the database in the same
//!   transaction.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::TryFutureExt as _;
use serde::Deserialize;
use serde_json::json;

use super::acted::acted;
use super::administrator::Administrator;
use super::app::App;
use super::caller::while_held;
use super::credentials::read;
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::log::ReadError;
use crate::log::consumers::By;

/// Longer than any socket lasts.
const IDLE_S_MAX: u64 = 31_536_000;
/// As long other lines are written at most.
const LEVEL_S_MAX: u64 = 86_400;

/// An administrator who may do what touches all tenants.
#[derive(Debug, Clone)]
pub struct Operator(pub Principal);

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Administrator(principal) = Administrator::from_request_parts(parts, app).await?;
        if app.operates(&principal.tenant) {
            Ok(Self(principal))
        } else {
            Err(not_an_operator())
        }
    }
}

fn not_an_operator() -> Problem {
    let detail = "this touches all tenants: it is for administrators of the tenant that the server's --operator-tenant names";
    Problem::new(Kind::Forbidden, detail)
}

/// `POST /v1/admin/breaker/reset`: the database is asked again at once, by the next that is written.
///
/// # Errors
/// 403, 429.
pub async fn reset_breaker(State(app): State<App>, Operator(principal): Operator) -> Response {
    let breaker = app.appender.breaker();
    let before = breaker.state();
    breaker.reset();
    let now = breaker.state();
    tracing::warn!(
        by = principal.name.as_str(),
        was = before.as_str(),
        "the breaker was reset"
    );
    let did = json!({ "was": before.as_str() });
    acted(&app, &principal, "tidewire.audit.breaker.reset", &did);
    Json(json!({ "was": before.as_str(), "state": now.as_str() })).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Idle {
    idle_s: u64,
    #[serde(default)]
    all_tenants: bool,
}

/// `POST /v1/admin/sessions/drop-idle`: ends sockets, streams and long-polls of the caller's tenant on which nothing has happened
/// for so long, of all tenants if an operator asks for that.
///
/// # Errors
/// 400, 403, 408, 413, 429.
pub async fn drop_idle(
    State(app): State<App>,
    Administrator(principal): Administrator,
    request: Request,
) -> Result<Response, Problem> {
    let Idle {
        idle_s,
        all_tenants,
    } = read(&app, &principal, request).await?;
    if !(1..=IDLE_S_MAX).contains(&idle_s) {
        let range = format!("must be 1 to {IDLE_S_MAX}");
        return Err(Problem::parameter("idle_s", range));
    }
    if all_tenants && !app.operates(&principal.tenant) {
        return Err(not_an_operator());
    }
    let tenant = (!all_tenants).then_some(&principal.tenant);
    let dropped = app.sessions.drop_idle(tenant, Duration::from_secs(idle_s));
    let did = json!({ "idle_s": idle_s, "all_tenants": all_tenants, "dropped": dropped });
    acted(
        &app,
        &principal,
        "tidewire.audit.admin.sessions.dropped",
        &did,
    );
    Ok(Json(json!({ "dropped": dropped })).into_response())
}

/// `POST /v1/admin/consumers/{name}/pause`: it takes no step from now on, on whichever server, and keeps its place.
///
/// # Errors
/// 403, 404, 429, 503.
pub async fn pause_consumer(
    State(app): State<App>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    pause(&app, &principal, &name, true).await
}

/// `POST /v1/admin/consumers/{name}/resume`: it goes on where it was.
///
/// # Errors
/// 403, 404, 429, 503.
pub async fn resume_consumer(
    State(app): State<App>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    pause(&app, &principal, &name, false).await
}

async fn pause(
    app: &App,
    principal: &Principal,
    name: &str,
    is_to_pause: bool,
) -> Result<Response, Problem> {
    let by = By {
        tenant: &principal.tenant,
        actor: &principal.name,
        role: principal.role.as_str(),
    };
    let problem = |error: ReadError| errors::follow(&error.into(), app.hub.identity());
    let pausing = app.history.pause_consumer(by, name, is_to_pause);
    let pausing = while_held(app, principal, pausing.map_err(problem));
    let Some(paused) = pausing.await? else {
        return Err(Problem::new(
            Kind::NotFound,
            "there is no consumer of this name: /v1/status lists them",
        ));
    };
    tracing::warn!(
        consumer = name,
        is_paused = is_to_pause,
        by = principal.name.as_str(),
        "a consumer was paused or resumed"
    );
    let answer = json!({
        "name": name,
        "is_paused": paused.paused_at.is_some(),
        "paused_at": paused.paused_at,
        "paused_by": paused.paused_by,
    });
    Ok(Json(answer).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    filter: String,
    #[serde(default = "ten_minutes")]
    for_s: u64,
}

const fn ten_minutes() -> u64 {
    600
}

/// `GET /v1/admin/log-level`: which lines are written now.
///
/// # Errors
/// 403, 429.
pub async fn log_level(State(app): State<App>, _: Operator) -> Response {
    in_force(&app)
}

/// `PUT /v1/admin/log-level`: other lines are written for a while.
///
/// # Errors
/// 400, 403, 408, 413, 429.
pub async fn set_log_level(
    State(app): State<App>,
    Operator(principal): Operator,
    request: Request,
) -> Result<Response, Problem> {
    let Level { filter, for_s } = read(&app, &principal, request).await?;
    if !(1..=LEVEL_S_MAX).contains(&for_s) {
        let range = format!("must be 1 to {LEVEL_S_MAX}");
        return Err(Problem::parameter("for_s", range));
    }
    let set = app.log_filter().set(&filter, Duration::from_secs(for_s));
    set.map_err(|error| Problem::parameter("filter", error))?;
    app.log_changed_by(&principal);
    tracing::warn!(filter, for_s, "other lines are logged for a while");
    let did = json!({ "filter": filter, "for_s": for_s });
    acted(&app, &principal, "tidewire.audit.admin.log_level.set", &did);
    Ok(in_force(&app))
}

fn in_force(app: &App) -> Response {
    let now = app.log_filter().in_force();
    let left_s = now.left.map(|left| left.as_secs_f64().ceil());
    Json(json!({ "filter": now.filter, "configured": now.configured, "left_s": left_s }))
        .into_response()
}
