//! `POST /v1/events`: single events, arrays, MessagePack and CloudEvents in one transaction each.
//!
//! # Invariants
//! - The tenant is the caller's. An event without a source gets the caller's name.
//! - `201` is sent after the commit.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::admission::Admission;
use super::app::App;
use super::body;
use super::caller::{Caller, under};
use super::errors;
use super::holding::Held;
use super::ingest::{self, Media};
use super::ndjson::{self, Upload};
use super::policy::admit;
use super::prefer::Preferences;
use super::problem::Problem;
use crate::access::Principal;
use crate::access::limits::Quantity;
use crate::event::{NewEvent, Topic};
use crate::log::{AppendOptions, Appended, Identity};
use crate::telemetry::Transport;

/// The answer to one event.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Its id, the client's or ours.
    pub id: String,
    /// Its cursor.
    pub cursor: String,
    /// Whether it was stored before.
    pub duplicate: bool,
}

impl Answer {
    /// The answer to an event that is stored.
    #[must_use]
    pub fn new(appended: &Appended, identity: &Identity) -> Self {
        Self {
            id: appended.id.as_str().to_owned(),
            cursor: identity.encode(appended.position),
            duplicate: appended.duplicate,
        }
    }
}

/// The answer to a request.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// In the order of the request.
    pub events: Vec<Answer>,
}

/// `POST /v1/events`.
///
/// # Errors
/// As the contract says.
pub async fn post(
    State(app): State<App>,
    Caller(principal): Caller,
    request: Request,
) -> Result<Response, Problem> {
    let admission = Admission::of_writer(&app, &principal, request.extensions());
    let media = ingest::media_type(request.headers())?;
    let key = ingest::idempotency_key(request.headers())?;
    let mut held = Held::begin(&app, &principal, Preferences::of(request.headers()).wait).await?;
    let policy = held.policy(&app, &principal).await?;
    if media == Media::Ndjson {
        let seat = app.seat(&admission, Transport::Upload)?;
        let upload = Upload {
            policy,
            admission,
            lease: held.into_lease(),
            _seat: seat,
        };
        return Ok(ndjson::post(app, upload, key, request));
    }
    let (parts, body) = request.into_parts();
    let body = held
        .of_client(async |lease| {
            body::admitted(&app, (&principal, lease), &admission, &parts, body).await
        })
        .await?;
    let mut events = ingest::decode(media, &parts.headers, &body, &app.ingest)?.events;
    admission.take(Quantity::Events, events.len())?;
    if let Some(key) = &key {
        ingest::assign_ids(&mut events, key, 0);
    }
    let events = under(held.lease(), admit(&app, &policy, events)).await?;
    let options = AppendOptions {
        request: parts.extensions.get().copied(),
        ..held.options(&app)
    };
    let appended = append(&app, &principal, events, options).await;
    let appended = held.settle(appended)?;
    Ok(created(&appended, app.hub.identity(), key.is_some()))
}

/// `201` and the answers; a replayed request says so.
#[must_use]
pub fn created(appended: &[Appended], identity: &Identity, has_key: bool) -> Response {
    let was_replayed = appended.iter().all(|one| one.duplicate);
    let answers = Answers {
        events: appended
            .iter()
            .map(|one| Answer::new(one, identity))
            .collect(),
    };
    let mut response = (StatusCode::CREATED, axum::Json(answers)).into_response();
    if has_key && was_replayed {
        response
            .headers_mut()
            .insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Stores events of `principal` in one transaction; in the order of the calls if they have one sequence. Who has gone meanwhile
/// has written them nevertheless: that is noted.
///
/// # Errors
/// The problem to answer with.
pub async fn append(
    app: &App,
    principal: &Principal,
    events: Vec<NewEvent>,
    options: AppendOptions,
) -> Result<Vec<Appended>, Problem> {
    let (own, principal) = (app.clone(), principal.clone());
    let work = async move {
        let topics: Vec<Topic> = events.iter().map(|event| event.topic.clone()).collect();
        let stored = own.appender.append(&principal.tenant, events, options);
        let appended = stored
            .await
            .map_err(|failed| errors::members(&failed, own.hub.identity()))?;
        let new = appended
            .iter()
            .zip(&topics)
            .filter(|(one, _)| !one.duplicate);
        own.audit.appended(&principal, new.map(|(_, topic)| topic));
        Ok(appended)
    };
    app.tasks.to_the_end(work).await
}
