//! `/v1/api-keys` and `/v1/revocations`: credentials that administrators hand out and take back, of their own tenant.
//!
//! # Invariants
//! - Nobody grants more than they hold themselves.
//! - A key is in the answer to its creation and nowhere else; not in that either if the credential it was asked for with has ended.
//! - Who ends its own credential is told so.

use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use futures_util::TryFutureExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::administrator::{Administrator, Asking};
use super::app::App;
use super::body;
use super::caller::{self, removed, while_held};
use super::errors;
use super::problem::{Kind, Problem};
use crate::access::{Claim, Grant, KeyId, LedgerError, Principal, Revocation, Role};
use crate::event::limits::{ADMINISTRATION_BODY_BYTES_MAX, FILTER_TOPICS_MAX, NAME_BYTES_MAX};
use crate::event::{Label, TopicPattern};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    role: String,
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRevocation {
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    /// When the last of these tokens ends by itself.
    until: Option<DateTime<Utc>>,
}

/// Null is no text.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    String::deserialize(value).map(Some)
}

/// Where a list of keys goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterKey {
    #[serde(default)]
    after: String,
    /// Those of this name alone.
    name: Option<String>,
}

/// Where a list of revocations goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterRevocation {
    /// `{claim}/{value}`.
    #[serde(default)]
    after: String,
}

/// `POST /v1/api-keys`.
///
/// # Errors
/// 400, 403, 429, 409 if the tenant has too many, 503.
pub async fn create_key(
    State(app): State<App>,
    Administrator(principal): Administrator,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: NewKey = read(&app, &principal, request).await?;
    let grant = grant(&principal, &wanted)?;
    let by = principal.name.as_str();
    let lease = caller::lease(&app, &principal).await?;
    let created = app.access.registry().create_key(&grant, by, &lease).await;
    let (key, created_at) = created.map_err(problem)?;
    // A key that nobody has been told is nobody's.
    caller::check(&lease)?;
    let answer = json!({
        "id": key.id.as_str(),
        "key": key.reveal().reveal(),
        "tenant": grant.tenant.as_str(),
        "name": grant.name.as_str(),
        "role": grant.role,
        "read": wanted.read,
        "write": wanted.write,
        "created_at": created_at,
        "created_by": by,
    });
    Ok((
        StatusCode::CREATED,
        Json(with_expiry(answer, wanted.expires_at)),
    )
        .into_response())
}

fn with_expiry(
    mut answer: serde_json::Value,
    expires_at: Option<DateTime<Utc>>,
) -> serde_json::Value {
    if let (Some(at), Some(answer)) = (expires_at, answer.as_object_mut()) {
        answer.insert("expires_at".into(), json!(at));
    }
    answer
}

/// `GET /v1/api-keys`.
///
/// # Errors
/// 400, 403, 429, 503.
pub async fn list_keys(
    State(app): State<App>,
    Asking(principal, from): Asking<AfterKey>,
) -> Result<Response, Problem> {
    if !from.after.is_empty() && KeyId::parse(&from.after).is_none() {
        return Err(Problem::parameter("after", "is not the id of an API key"));
    }
    let name = from.name.as_deref().map(Label::parse).transpose();
    let name = name.map_err(|error| Problem::parameter("name", error))?;
    let registry = app.access.registry();
    let listing = registry.list_keys(&principal.tenant, &from.after, name.as_ref());
    let listing = listing.map_err(problem);
    let (keys, has_more) = while_held(&app, &principal, listing).await?;
    Ok(Json(json!({ "api_keys": keys, "has_more": has_more })).into_response())
}

/// `DELETE /v1/api-keys/{id}`: whoever uses it is closed within a second, on every server.
///
/// # Errors
/// 403, 404, 429, 503.
pub async fn revoke_key(
    State(app): State<App>,
    Administrator(principal): Administrator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let missing = || Problem::new(Kind::NotFound, "the tenant has no API key with this id");
    let id = KeyId::parse(&id).ok_or_else(missing)?;
    let lease = caller::lease(&app, &principal).await?;
    let registry = app.access.registry();
    let revoked = registry.revoke_key(&principal.tenant, &id, principal.name.as_str(), &lease);
    removed(revoked.await.map_err(problem)?, missing)
}

/// `POST /v1/revocations`: `{"jti":"…"}` for one token, `{"sub":"…"}` for all of a subject that were issued until now.
///
/// # Errors
/// 400, 403, 429, 409 if the tenant has too many, 503.
pub async fn revoke_tokens(
    State(app): State<App>,
    Administrator(principal): Administrator,
    request: Request,
) -> Result<Response, Problem> {
    let wanted: NewRevocation = read(&app, &principal, request).await?;
    let (claim, value) = match (wanted.jti, wanted.sub) {
        (Some(value), None) => (Claim::Jti, value),
        (None, Some(value)) => (Claim::Sub, value),
        _ => {
            return Err(Problem::parameter(
                "jti",
                "name one: jti for one token, or sub for all of a subject",
            ));
        }
    };
    let value = Label::parse(&value).map_err(|error| Problem::parameter(claim.as_str(), error))?;
    let has_passed = |until| SystemTime::from(until) <= SystemTime::now();
    if wanted.until.is_some_and(has_passed) {
        let reason =
            "has passed: leave it out, or say when the last of these tokens ends by itself";
        return Err(Problem::parameter("until", reason));
    }
    let revocation = Revocation {
        claim,
        value,
        until: wanted.until,
    };
    let by = principal.name.as_str();
    let lease = caller::lease(&app, &principal).await?;
    let registry = app.access.registry();
    let revoked = registry.revoke_tokens(&principal.tenant, &revocation, by, &lease);
    let revoked_at = revoked.await.map_err(problem)?;
    let answer = json!({
        "claim": claim.as_str(),
        "value": revocation.value.as_str(),
        "revoked_at": revoked_at,
        "revoked_by": by,
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// `GET /v1/revocations`.
///
/// # Errors
/// 400, 403, 429, 503.
pub async fn list_revoked(
    State(app): State<App>,
    Asking(principal, from): Asking<AfterRevocation>,
) -> Result<Response, Problem> {
    let after = match from.after.split_once('/') {
        Some((claim, value)) if Claim::parse(claim).is_some() => (claim, value),
        None if from.after.is_empty() => ("", ""),
        _ => {
            let reason = "must be the claim and the value of a revocation, with / between";
            return Err(Problem::parameter("after", reason));
        }
    };
    let registry = app.access.registry();
    let listing = registry.list_revoked(&principal.tenant, after);
    let listing = listing.map_err(problem);
    let (revocations, has_more) = while_held(&app, &principal, listing).await?;
    Ok(Json(json!({ "revocations": revocations, "has_more": has_more })).into_response())
}

/// `DELETE /v1/revocations/{claim}/{value}`: its tokens count again where they have not ended, whatever they let their holders do.
///
/// # Errors
/// 400, 403, 404, 429, 503.
pub async fn withdraw_revocation(
    State(app): State<App>,
    Administrator(principal): Administrator,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((claim, value)) = path?;
    let all = [TopicPattern::any()];
    principal.may_grant(&all, &all).map_err(|_| {
        let detail = "nobody grants more than they hold: what the tokens cover is not known, so this takes read and write of *";
        Problem::new(Kind::ForbiddenTopic, detail)
    })?;
    let missing = || Problem::new(Kind::NotFound, "the tenant has no such revocation");
    let claim = Claim::parse(&claim).ok_or_else(missing)?;
    let value = Label::parse(&value).map_err(|_| missing())?;
    let lease = caller::lease(&app, &principal).await?;
    let registry = app.access.registry();
    let by = principal.name.as_str();
    let withdrawn = registry.withdraw_revocation(&principal.tenant, claim, &value, by, &lease);
    let was_there = withdrawn.await.map_err(problem)?;
    caller::check(&lease)?;
    removed(was_there, missing)
}

/// Reads a JSON body: a short one, since what is made of it counts nowhere.
///
/// # Errors
/// 400, 408, 413 or 503.
pub async fn read<T: DeserializeOwned>(
    app: &App,
    principal: &Principal,
    request: Request,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let lease = caller::lease(app, principal).await?;
    let who = (principal, &lease);
    let body = body::read(app, who, &parts, body, ADMINISTRATION_BODY_BYTES_MAX).await?;
    let read = serde_json::from_slice(&body);
    read.map_err(|error| {
        Problem::new(
            Kind::Malformed,
            format!("the body is not what this takes: {error}"),
        )
    })
}

/// What the key shall be good for.
fn grant(principal: &Principal, wanted: &NewKey) -> Result<Grant, Problem> {
    let name = Label::parse(&wanted.name).map_err(|error| Problem::parameter("name", error))?;
    let role = Role::parse(&wanted.role)
        .ok_or_else(|| Problem::parameter("role", "must be agent, dashboard, analyst or admin"))?;
    let read = patterns("read", &wanted.read)?;
    let write = patterns("write", &wanted.write)?;
    principal.may_grant(&read, &write).map_err(|pattern| {
        let detail =
            format!("nobody grants more than they hold: this credential does not cover {pattern}");
        Problem::new(Kind::ForbiddenTopic, detail)
    })?;
    let expires_at = wanted
        .expires_at
        .map(|at| u64::try_from(at.timestamp()).unwrap_or(0));
    if wanted
        .expires_at
        .is_some_and(|at| SystemTime::from(at) <= SystemTime::now())
    {
        return Err(Problem::parameter("expires_at", "has passed"));
    }
    Ok(Grant {
        tenant: principal.tenant.clone(),
        name,
        role,
        read,
        write,
        expires_at,
    })
}

/// Reads topic patterns.
///
/// # Errors
/// 400.
pub fn patterns(field: &str, texts: &[String]) -> Result<Vec<TopicPattern>, Problem> {
    if texts.len() > FILTER_TOPICS_MAX {
        return Err(Problem::parameter(
            field,
            format_args!("at most {FILTER_TOPICS_MAX} topic patterns"),
        ));
    }
    let parse =
        |text: &String| TopicPattern::parse(text).map_err(|error| Problem::parameter(field, error));
    texts.iter().map(parse).collect()
}

/// What went wrong, as an answer.
pub fn problem(error: LedgerError) -> Problem {
    match error {
        LedgerError::Unavailable => errors::unavailable(
            "credentials cannot be read or changed: the database does not answer at the moment",
        ),
        LedgerError::HeldUp => errors::unavailable(
            "another transaction in the database is in the way of this: if it stays open an operator has to end it",
        ),
        LedgerError::Unreadable(tenant) => errors::internal(&format!(
            "the settings of tenant {} cannot be read",
            tenant.as_str()
        )),
        LedgerError::Ended(why) => caller::denied(&why),
        LedgerError::Crowded => errors::crowded(),
        LedgerError::TooMany { .. } => Problem::new(Kind::TooMany, error.to_string()),
        LedgerError::TooLarge | LedgerError::Refused => {
            Problem::new(Kind::InvalidSchema, format!("schema: {error}"))
        }
        LedgerError::Database(_) => errors::internal(&error.to_string()),
    }
}

const _: () = assert!(NAME_BYTES_MAX == 255, "the columns' constraints say so");
