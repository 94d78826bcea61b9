//! `PUT|PATCH /v1/agents/{id}/state`, `POST /v1/agents/{id}/commands`: conveniences over the same log.
//!
//! # Invariants
//! - Nothing here that a `POST /v1/events` could not do: the subject is the agent, the topic follows from the method.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::value::RawValue;

use super::admission::Admission;
use super::app::App;
use super::append::{append, created};
use super::body::{self, Whole};
use super::caller::{Caller, under};
use super::holding::Held;
use super::ingest;
use super::policy::admit;
use super::prefer::Preferences;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::access::limits::Quantity;
use crate::event::Label;
use crate::event::new_event::{Draft, Refusal};
use crate::log::AppendOptions;

/// `PUT /v1/agents/{id}/state`: the whole state.
///
/// # Errors
/// As `POST /v1/events`.
pub async fn replace_state(
    State(app): State<App>,
    Caller(principal): Caller,
    agent: AgentId,
    request: Request,
) -> Result<Response, Problem> {
    let (held, parts, body) = read(&app, &principal, request).await?;
    let holder = (&principal, &held);
    store(&app, holder, &agent?, "agent.state.replaced", &parts, &body).await
}

/// `PATCH /v1/agents/{id}/state`: an RFC 7396 merge patch.
///
/// # Errors
/// As `POST /v1/events`.
pub async fn patch_state(
    State(app): State<App>,
    Caller(principal): Caller,
    agent: AgentId,
    request: Request,
) -> Result<Response, Problem> {
    let (held, parts, body) = read(&app, &principal, request).await?;
    let holder = (&principal, &held);
    store(&app, holder, &agent?, "agent.state.updated", &parts, &body).await
}

/// `POST /v1/agents/{id}/commands`: `{"action":"pause","params":{}}`.
///
/// # Errors
/// As `POST /v1/events`; 422 without an action.
pub async fn command(
    State(app): State<App>,
    Caller(principal): Caller,
    agent: AgentId,
    request: Request,
) -> Result<Response, Problem> {
    let (held, parts, body) = read(&app, &principal, request).await?;
    let holder = (&principal, &held);
    let wanted: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Kind::Malformed, format!("the body is not JSON: {error}")))?;
    if !wanted
        .get("action")
        .is_some_and(serde_json::Value::is_string)
    {
        let refusal = Refusal::new(
            crate::event::new_event::Fault::Invalid,
            "action",
            "is missing: what shall the agent do?",
        );
        return Err(Problem::refused(0, &refusal));
    }
    store(
        &app,
        holder,
        &agent?,
        "agent.command.requested",
        &parts,
        &body,
    )
    .await
}

/// Who asks, and for how long.
type Holder<'a> = (&'a Principal, &'a Held);
type AgentId = Result<Path<String>, PathRejection>;

async fn read(
    app: &App,
    principal: &Principal,
    request: Request,
) -> Result<(Held, Parts, Whole), Problem> {
    let (parts, body) = request.into_parts();
    let mut held = Held::begin(app, principal, Preferences::of(&parts.headers).wait).await?;
    let admission = Admission::of_writer(app, principal, &parts.extensions);
    let body = held
        .of_client(async |lease| {
            body::admitted(app, (principal, lease), &admission, &parts, body).await
        })
        .await?;
    admission.take(Quantity::Events, 1)?;
    Ok((held, parts, body))
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::parameter("id", rejection.body_text())
    }
}

async fn store(
    app: &App,
    (principal, held): Holder<'_>,
    Path(agent): &Path<String>,
    topic: &str,
    parts: &Parts,
    body: &[u8],
) -> Result<Response, Problem> {
    let headers = &parts.headers;
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if media != "application/json" && media != "application/merge-patch+json" {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "this takes application/json or application/merge-patch+json",
        )
        .with_member("accept", "application/json, application/merge-patch+json"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::new(Kind::Malformed, format!("the body is not UTF-8: {error}"))
    })?;
    let data: &RawValue = serde_json::from_str(text.trim())
        .map_err(|error| Problem::new(Kind::Malformed, format!("the body is not JSON: {error}")))?;
    let refused = |refusal: Refusal| Problem::refused(0, &refusal);
    let mut draft = Draft::default();
    draft.set_topic(topic).map_err(refused)?;
    draft
        .set_data(data, app.ingest.data_bytes)
        .map_err(refused)?;
    let subject = Label::parse(agent).map_err(|error| Problem::parameter("id", error))?;
    draft.subject = Some(subject);
    let mut events = [draft.finish().map_err(refused)?];
    let key = ingest::idempotency_key(headers)?;
    if let Some(key) = &key {
        ingest::assign_ids(&mut events, key, 0);
    }
    if let Some(trace) = ingest::traceparent(headers) {
        ingest::apply_trace(&mut events, trace);
    }
    let policy = held.policy(app, principal).await?;
    let events = under(held.lease(), admit(app, &policy, events.into())).await?;
    let options = AppendOptions {
        request: parts.extensions.get().copied(),
        ..held.options(app)
    };
    let appended = append(app, principal, events, options).await;
    let appended = held.settle(appended)?;
    Ok(created(&appended, app.hub.identity(), key.is_some()))
}
