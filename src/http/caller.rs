//! Who is calling, from a request's headers.
//!
//! # Invariants
//! - The only place where a credential is read from a request. `?token=` counts on WebSocket and SSE only.
//! - Who has been let in is not let in for ever: what waits, for the client, the log, a turn or the database, does so under a
//!   lease. When that has ended nothing more is asked of the database, and nothing that was read is answered. What was under way
//!   there is ended there, or may still be made, once, in the moment that a statement waits for a lock: `access::changes`.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::{Denied, Lease, Principal};

/// The holder of the request's `Authorization` header.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        identify(app, parts, None).await.map(Self)
    }
}

/// A lease for what outlasts the request.
///
/// # Errors
/// 401 or 503.
pub async fn lease(app: &App, principal: &Principal) -> Result<Lease, Problem> {
    let lease = app.access.lease(principal).await;
    lease.map_err(|why| denied(&why))
}

/// Does what may take long, such as waiting for a body, under the caller's credential. Whoever does something with the
/// outcome does it for somebody who may still do it.
///
/// # Errors
/// 401 when the credential ends meanwhile, 503, and those of `work`.
pub async fn while_held<T>(
    app: &App,
    principal: &Principal,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let lease = lease(app, principal).await?;
    let done = under(&lease, work).await;
    check(&lease)?;
    done
}

/// Does `work` as long as the lease lasts.
///
/// # Errors
/// 401 when it ends before, and those of `work`.
pub async fn under<T>(
    lease: &Lease,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    lease.run(work).await.map_err(|why| denied(&why))?
}

/// Whether the holder may still be answered.
///
/// # Errors
/// 401.
pub fn check(lease: &Lease) -> Result<(), Problem> {
    lease.check().map_err(|why| denied(&why))
}

/// What whoever removes something is answered: 204 if it was there.
///
/// # Errors
/// `missing` if it was not.
pub fn removed(was_there: bool, missing: impl FnOnce() -> Problem) -> Result<Response, Problem> {
    was_there.then_some(()).ok_or_else(missing)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl OptionalFromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        Ok(identify(app, parts, None).await.ok().map(Self))
    }
}

/// Who holds the header's token, or else `token`.
///
/// # Errors
/// 401.
pub async fn identify(app: &App, parts: &Parts, token: Option<&str>) -> Result<Principal, Problem> {
    let header = match parts.headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(|| denied(&Denied::Invalid))?,
        ),
    };
    app.access
        .identify(header.or(token))
        .await
        .map_err(|why| denied(&why))
}

/// The answer to a caller who is not let in.
#[must_use]
pub fn denied(denied: &Denied) -> Problem {
    match denied {
        Denied::Unavailable => errors::unavailable(
            "the credential cannot be checked: the database does not answer at the moment",
        ),
        denied => Problem::new(Kind::Unauthenticated, denied.to_string()),
    }
}
