//! Server-sent events: unnamed messages whose id is the cursor, so that `onmessage` and `Last-Event-ID` do the rest.
//!
//! # Invariants
//! - One line of data a message: a JSON array of events. A heartbeat is a named event with an id.
//! - Browsers give up for good on most error statuses when they reconnect. So a request that resumes gets 200 and, when
//!   the server is full or draining, `retry:` and the end; a final condition is a named `error` event.
//! - The stream ends when the credential does.

use super::drain::Departure;
use super::outage::Outage;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{TryFutureExt as _, stream};
use rand::RngExt as _;
use tokio::sync::Notify;

use super::admission::Admission;
use super::app::{App, Seat};
use super::audit::Doing;
use super::caller;
use super::errors;
use super::metrics;
use super::params::ReadParams;
use super::problem::Problem;
use super::read::{join_json, place, wait_at_least};
use super::sessions::{Cut, Session, Why};
use crate::access::{Denied, Lease};
use crate::event::limits::{CATCH_UP_EVENTS, SESSION_BYTES, SESSION_NAME_BYTES, SSE_HEARTBEAT};
use crate::event::{Event, Position};
use crate::feed::pace::Rest;
use crate::feed::{Batch, FollowError, Follower, Start};
use crate::tasks::pause;
use crate::telemetry::Transport;

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
        Err(problem) if problem.kind.is_transient() && app.drain.has_begun() => {
            let retry = come_back(app.drain.come_back_after());
            Ok(respond(Body::from(retry)))
        }
        Err(problem) => Ok(respond(Body::from(last_words(&problem)))),
    }
}

struct Stream {
    app: App,
    follower: Follower,
    lease: Lease,
    departure: Departure,
    outage: Outage,
    /// While it has read history too often.
    rest: Rest,
    /// Sent before the next read.
    pending: Option<Bytes>,
    is_live: bool,
    is_over: bool,
    session: Session,
    _seat: Seat,
}

async fn open(
    app: &App,
    parts: &Parts,
    params: &ReadParams,
    resume: Option<&str>,
) -> Result<Stream, Problem> {
    let principal = caller::identify(app, parts, params.token.as_deref()).await?;
    if app.drain.has_begun() {
        return Err(errors::overloaded("the server is shutting down"));
    }
    // Ended before anything is waited for: nobody else's turn may depend on a watermark or the database.
    drop(app.hub.turn(&principal.tenant).await);
    let admission = Admission::of_reader(app, &principal, &parts.extensions);
    let seat = app.seat(&admission, Transport::Sse)?;
    let cut = parts.extensions.get::<Cut>().cloned();
    let session = app.sessions.enter(&principal.tenant, SESSION_BYTES, cut);
    let session = session.map_err(|_| errors::full())?;
    if params.wait()?.is_some() {
        return Err(Problem::parameter(
            "wait",
            "goes with pages, not with a stream",
        ));
    }
    let lease = caller::lease(app, &principal).await?;
    caller::under(&lease, wait_at_least(app, params)).await?;
    let (filter, start) = place(app, &principal, params, resume, Start::Latest)?;
    admission.begin(start)?;
    app.audit.read(&principal, Doing::Subscribed, &filter);
    let names = filter
        .topics()
        .len()
        .saturating_add(filter.subjects().len());
    let (tenant, wake) = (principal.tenant.clone(), Arc::new(Notify::new()));
    let starting = Follower::start(&app.hub, tenant, filter, start, wake)
        .map_err(|error| errors::follow(&error, app.hub.identity()));
    let follower = caller::under(&lease, starting).await?;
    let held = names.saturating_mul(SESSION_NAME_BYTES);
    session.subscribe(1, held).map_err(|_| errors::full())?;
    let follower = follower.at_pace(admission.pace());
    let greeting = format!(
        "retry: {RETRY_MS}\nid: {}\n\n",
        app.hub.identity().encode(follower.after())
    );
    Ok(Stream {
        app: app.clone(),
        follower,
        lease,
        departure: app.drain.departure(),
        outage: Outage::new(app.appender.breaker()),
        rest: Rest::default(),
        pending: Some(greeting.into()),
        is_live: false,
        is_over: false,
        session,
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
        let message = stream.session.sending_next(message);
        Some((Ok(message), stream))
    })
}

/// Whether a read is part of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    Yes,
    No,
}

/// What a stream waits for.
enum News {
    Dropped(Why),
    Notice(serde_json::Value),
    Read((Beat, Result<Batch, FollowError>)),
}

/// What comes next; when nothing does for long, what there is.
async fn next(follower: &mut Follower, rest: &mut Rest) -> (Beat, Result<Batch, FollowError>) {
    match tokio::time::timeout(SSE_HEARTBEAT, soon(follower, rest)).await {
        Ok(next) => (Beat::No, next),
        Err(_) => (Beat::Yes, follower.read(CATCH_UP_EVENTS).await),
    }
}

/// What comes next. A stream that reads history too often waits until it may.
async fn soon(follower: &mut Follower, rest: &mut Rest) -> Result<Batch, FollowError> {
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
        let (follower, rest, outage) = (&mut self.follower, &mut self.rest, &mut self.outage);
        let dropped = self.session.dropped();
        let news = async {
            tokio::select! {
                biased;
                why = dropped => News::Dropped(why),
                notice = outage.notice() => News::Notice(notice),
                read = next(follower, rest) => News::Read(read),
            }
        };
        let waited = self.lease.run(self.departure.run(news));
        let read = match waited.await {
            Err(denied) => return Some(self.deny(&denied)),
            Ok(None) => return Some(self.leave()),
            Ok(Some(News::Dropped(why))) => return Some(self.drop_out(why)),
            Ok(Some(News::Notice(notice))) => {
                return Some(format!("event: notice\ndata: {notice}\n\n").into());
            }
            Ok(Some(News::Read(read))) => read,
        };
        Some(match read {
            (Beat::No, Ok(batch)) if batch.events.is_empty() => {
                self.is_live = true;
                self.heartbeat("live", batch.through)
            }
            (Beat::Yes, Ok(batch)) if batch.events.is_empty() => {
                self.heartbeat("heartbeat", batch.through)
            }
            (_, Ok(batch)) => self.message(&batch.events, &batch),
            // It is its turn to wait, not to go.
            (Beat::Yes, Err(FollowError::TooOften { .. })) => {
                self.heartbeat("heartbeat", self.follower.after())
            }
            (_, Err(error)) => {
                self.is_over = true;
                last_words(&errors::follow(&error, self.app.hub.identity()))
            }
        })
    }

    /// The server goes: the same hint as a WebSocket gets.
    fn leave(&mut self) -> Bytes {
        self.is_over = true;
        come_back(self.app.drain.come_back_after())
    }

    /// It is told to go: the browser comes back with the cursor it has.
    fn drop_out(&mut self, why: Why) -> Bytes {
        self.is_over = true;
        last_words(&errors::overloaded(match why {
            Why::Idle => "idle: closed by an administrator",
            Why::Evicted(_) => "the server is short of memory",
        }))
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
        metrics::delivered(&self.app, Transport::Sse, batch);
        self.session.touch();
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
    let base = problem.retry_after.unwrap_or(Duration::from_secs(1));
    let jitter = rand::rng().random_range(0..2_000);
    come_back(base.saturating_add(Duration::from_millis(jitter)))
}

/// When to come back, with the cursor.
fn come_back(after: Duration) -> Bytes {
    format!("retry: {}\n\n", after.as_millis()).into()
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
