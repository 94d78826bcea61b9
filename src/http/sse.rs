//! Server-sent events: unnamed messages whose id is the cursor, so that `onmessage` and `Last-Event-ID` do the rest.
//!
//! # Invariants
//! - One line of data a message: a JSON array of events. A heartbeat is a named event with an id.
//! - Browsers give up for good on most error statuses when they reconnect. So a request that resumes gets 200 and, when
//!   the server is full or draining, `retry:` and the end; a final condition is a named `error` event.
//! - The stream ends when the credential does.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use rand::RngExt as _;
use tokio::sync::Notify;

use super::admission::Admission;
use super::app::{App, Seat};
use super::audit::Doing;
use super::caller;
use super::errors;
use super::params::ReadParams;
use super::problem::Problem;
use super::read::{join_json, place, wait_at_least};
use crate::access::{Denied, Lease};
use crate::event::limits::{CATCH_UP_EVENTS, SSE_HEARTBEAT};
use crate::event::{Event, Position};
use crate::feed::pace::Rest;
use crate::feed::{Batch, FollowError, Follower, Start};
use crate::tasks::pause;

/// What a browser waits before it reconnects, unless told otherwise.
const RETRY_MS: u64 = 1_000;

/// Answers a request that accepts `text/event-stream`.
///
/// # Errors
/// On a first request, as any read. A resuming request gets its errors as events.
pub async fn get(app: App, parts: &Parts, params: &ReadParams) -> Result<Response, Problem> {
    let resume = parts
        .headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .filter(|text| !text.is_empty());
    if resume.is_some_and(|id| id.starts_with(TOLD)) {
        // The browser was told by an `error` event; its return means that nobody listened to it.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    match open(&app, parts, params, resume).await {
        Ok(stream) => Ok(respond(Body::from_stream(messages(stream)))),
        Err(problem) if resume.is_none() => Err(problem),
        Err(problem) => Ok(respond(Body::from(last_words(&problem)))),
    }
}

struct Stream {
    app: App,
    follower: Follower,
    lease: Lease,
    /// While it has read history too often.
    rest: Rest,
    /// Sent before the next read.
    pending: Option<Bytes>,
    is_live: bool,
    is_over: bool,
    _seat: Seat,
}

async fn open(
    app: &App,
    parts: &Parts,
    params: &ReadParams,
    resume: Option<&str>,
) -> Result<Stream, Problem> {
    let principal = caller::identify(app, parts, params.token.as_deref()).await?;
    if app.tasks.token().is_cancelled() {
        return Err(errors::overloaded("the server is shutting down"));
    }
    // Ended before anything is waited for: nobody else's turn may depend on a watermark or the database.
    drop(app.hub.turn(&principal.tenant).await);
    let admission = Admission::of_reader(app, &principal, &parts.extensions);
    let seat = app.seat(&admission)?;
    if params.wait()?.is_some() {
        return Err(Problem::parameter(
            "wait",
            "goes with pages, not with a stream",
        ));
    }
    let lease = caller::lease(app, &principal).await?;
    wait_at_least(app, params).await?;
    let (filter, start) = place(app, &principal, params, resume, Start::Latest)?;
    admission.begin(start)?;
    app.audit.read(&principal, Doing::Subscribed, &filter);
    let (tenant, wake) = (principal.tenant.clone(), Arc::new(Notify::new()));
    let follower = Follower::start(&app.hub, tenant, filter, start, wake)
        .await
        .map_err(|error| errors::follow(&error, app.hub.identity()))?
        .at_pace(admission.pace());
    let greeting = format!(
        "retry: {RETRY_MS}\nid: {}\n\n",
        app.hub.identity().encode(follower.after())
    );
    Ok(Stream {
        app: app.clone(),
        follower,
        lease,
        rest: Rest::default(),
        pending: Some(greeting.into()),
        is_live: false,
        is_over: false,
        _seat: seat,
    })
}

fn messages(
    stream: Stream,
) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(stream, |mut stream| async move {
        let message = stream.next().await?;
        // The line may be slow: nobody waits for it.
        drop(stream.follower.turn());
        Some((Ok(message), stream))
    })
}

/// What comes next. A stream that reads history too often waits until it may.
async fn next(follower: &mut Follower, rest: &mut Rest) -> Result<Batch, FollowError> {
    loop {
        match follower.next(CATCH_UP_EVENTS).await {
            Err(FollowError::TooOften { wait }) => pause(rest.again(wait)).await,
            next => {
                rest.end();
                return next;
            }
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(pending) = self.pending.take() {
            return Some(pending);
        }
        if self.is_over {
            return None;
        }
        // Before anything is read: whoever has much to catch up with is looked at as well.
        if let Err(denied) = self.lease.check() {
            return Some(self.deny(&denied));
        }
        let stop = self.app.tasks.token().clone();
        let next = stop.run_until_cancelled(tokio::time::timeout(
            SSE_HEARTBEAT,
            next(&mut self.follower, &mut self.rest),
        ));
        let next = match self.lease.run(next).await {
            Ok(next) => next,
            Err(denied) => return Some(self.deny(&denied)),
        };
        Some(match next {
            None => {
                self.is_over = true;
                last_words(&errors::overloaded("the server is shutting down"))
            }
            Some(Ok(Ok(batch))) if batch.events.is_empty() => {
                self.is_live = true;
                self.heartbeat("live", batch.through)
            }
            Some(Ok(Ok(batch))) => self.message(&batch.events, &batch),
            Some(Ok(Err(error))) => {
                self.is_over = true;
                last_words(&errors::follow(&error, self.app.hub.identity()))
            }
            Some(Err(_)) => match self.follower.read(CATCH_UP_EVENTS).await {
                Ok(batch) if batch.events.is_empty() => self.heartbeat("heartbeat", batch.through),
                Ok(batch) => self.message(&batch.events, &batch),
                // It is its turn to wait, not to go.
                Err(FollowError::TooOften { .. }) => {
                    self.heartbeat("heartbeat", self.follower.after())
                }
                Err(error) => {
                    self.is_over = true;
                    last_words(&errors::follow(&error, self.app.hub.identity()))
                }
            },
        })
    }

    fn deny(&mut self, denied: &Denied) -> Bytes {
        self.is_over = true;
        last_words(&caller::denied(denied))
    }

    fn message(&mut self, events: &[Arc<Event>], batch: &Batch) -> Bytes {
        if batch.is_caught_up && !self.is_live {
            self.is_live = true;
            self.pending = Some(self.heartbeat("live", batch.through));
        }
        let bytes: usize = events
            .iter()
            .map(|event| event.json.len().saturating_add(1))
            .sum();
        let mut out = Vec::with_capacity(bytes.saturating_add(64));
        out.extend_from_slice(
            format!(
                "id: {}\ndata: [",
                self.app.hub.identity().encode(batch.through)
            )
            .as_bytes(),
        );
        join_json(&mut out, events);
        out.extend_from_slice(b"]\n\n");
        out.into()
    }

    fn heartbeat(&self, name: &str, through: Position) -> Bytes {
        let cursor = self.app.hub.identity().encode(through);
        format!("event: {name}\nid: {cursor}\ndata: {{\"cursor\":\"{cursor}\"}}\n\n").into()
    }
}

/// The id of an `error` event begins so: a request that resumes from it has been told.
const TOLD: &str = "none:";

fn is_final(problem: &Problem) -> bool {
    !problem.kind.is_transient()
}

/// The end of a stream: for a while (`retry:`, jittered, and the cursor stays) or for good (an `error` event).
fn last_words(problem: &Problem) -> Bytes {
    if is_final(problem) {
        let code = problem.kind.code();
        return format!(
            "event: error\nid: {TOLD}{code}\ndata: {}\n\n",
            problem.to_json()
        )
        .into();
    }
    let base = problem
        .retry_after
        .unwrap_or(Duration::from_secs(1))
        .as_millis();
    let jitter = rand::rng().random_range(0..2_000_u128);
    format!("retry: {}\n\n", base.saturating_add(jitter)).into()
}

fn respond(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    // Proxies that buffer look like lost events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
