//! `GET /v1/events`: a page, a long-poll, or a stream of server-sent events, as the request asks.
//!
//! # Invariants
//! - All three run the same follower; they differ in when they stop and how they write.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::admission::Admission;
use super::app::App;
use super::audit::Doing;
use super::caller::{self, while_held};
use super::errors;
use super::held;
use super::metrics;
use super::params::ReadParams;
use super::problem::{Kind, Problem};
use super::serve::Patience;
use super::sessions::Cut;
use super::sse;
use crate::access::Principal;
use crate::event::limits::{AT_LEAST_WAIT_MAX, SESSION_BYTES};
use crate::event::{Event, Filter};
use crate::feed::{Batch, FollowError, Follower, Start};
use crate::telemetry::Transport;

/// A full page: asked for again with its tag, since what it holds may be erased.
const REVALIDATED: &str = "private, no-cache";
/// What may have grown by the next time.
const NO_STORE: &str = "no-store";

/// How the events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Msgpack,
    CloudEvents,
    Sse,
}

/// `GET /v1/events`.
///
/// # Errors
/// As the contract says.
pub async fn get(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let format = format(&parts.headers)?;
    let params = ReadParams::parse(parts.uri.query())?;
    if format == Format::Sse {
        return sse::get(app, &parts, &params).await;
    }
    if params.token.is_some() {
        return Err(Problem::parameter(
            "token",
            "counts on WebSocket and server-sent events only; send Authorization: Bearer",
        ));
    }
    let principal = caller::identify(&app, &parts, None).await?;
    page(&app, &principal, &parts, &params, format).await
}

async fn page(
    app: &App,
    principal: &Principal,
    parts: &Parts,
    params: &ReadParams,
    format: Format,
) -> Result<Response, Problem> {
    let (limit, wait) = (params.limit()?, params.wait()?);
    while_held(app, principal, wait_at_least(app, params)).await?;
    let (filter, start) = place(app, principal, params, None, Start::Earliest)?;
    let admission = Admission::of_reader(app, principal, &parts.extensions);
    admission.begin(start)?;
    app.audit.read(principal, Doing::Read, &filter);
    let (mut follower, mut batch) = while_held(app, principal, async {
        let follow = |error: FollowError| errors::follow(&error, app.hub.identity());
        let looking = Follower::look(&app.hub, principal.tenant.clone(), filter, start);
        let mut follower = looking.await.map_err(follow)?.at_pace(admission.pace());
        let batch = read_page(&mut follower, limit).await.map_err(follow)?;
        Ok((follower, batch))
    })
    .await?;
    if let Some(wait) = wait.filter(|wait| batch.events.is_empty() && !wait.is_zero()) {
        let _seat = app.seat(&admission, Transport::LongPoll)?;
        let session = app.sessions.enter(&principal.tenant, SESSION_BYTES, None);
        let session = session.map_err(|_| errors::full())?;
        let dropped = session.dropped();
        let lease = caller::lease(app, principal).await?;
        let polled = lease
            .run(poll(app, &mut follower, (batch, dropped), limit, wait))
            .await;
        batch = polled.map_err(|why| caller::denied(&why))??;
    }
    let is_full = !batch.is_caught_up && !batch.events.is_empty();
    let cache = if is_full && wait.is_none() {
        REVALIDATED
    } else {
        NO_STORE
    };
    let transport = if wait.is_some() {
        Transport::LongPoll
    } else {
        Transport::Page
    };
    metrics::delivered(app, transport, &batch);
    write_page(app, principal, parts, format, &batch, cache)
}

/// Waits for the first match; an empty page with a fresh cursor when the time is up, the server drains or it is told to go.
async fn poll(
    app: &App,
    follower: &mut Follower,
    (first, dropped): (Batch, impl Future),
    limit: usize,
    wait: Duration,
) -> Result<Batch, Problem> {
    let until = tokio::time::Instant::now().checked_add(wait);
    let departure = app.drain.departure();
    let mut dropped = pin!(dropped);
    loop {
        let next = follower.next(limit);
        let next = async {
            match until {
                Some(until) => tokio::time::timeout_at(until, next).await.ok(),
                None => Some(next.await),
            }
        };
        let next = async {
            tokio::select! {
                biased;
                _ = &mut dropped => None,
                next = next => next,
            }
        };
        match departure.run(next).await.flatten() {
            Some(Ok(batch)) if batch.events.is_empty() => {}
            Some(Ok(batch)) => return Ok(batch),
            Some(Err(error)) => return Err(errors::follow(&error, app.hub.identity())),
            None => {
                // Time is up. What came in this very moment is taken along; the cursor is fresh in any case.
                let last = follower.read(limit).await;
                return Ok(last.unwrap_or(Batch {
                    events: Vec::new(),
                    ..first
                }));
            }
        }
    }
}

/// Reads until there is something to answer with or the end is reached: a filter that rarely matches may need several
/// looks.
async fn read_page(follower: &mut Follower, limit: usize) -> Result<Batch, FollowError> {
    const LOOKS_MAX: u32 = 20;
    let mut batch = follower.read(limit).await?;
    for _ in 0..LOOKS_MAX {
        if !batch.events.is_empty() || batch.is_caught_up {
            break;
        }
        batch = match follower.read(limit).await {
            // What was looked at need not be looked at again.
            Err(FollowError::TooOften { .. }) => break,
            read => read?,
        };
    }
    Ok(batch)
}

/// Waits until the place in `at_least` can be read.
///
/// # Errors
/// 400, 409, or 503 when it takes too long.
pub async fn wait_at_least(app: &App, params: &ReadParams) -> Result<(), Problem> {
    let Some(cursor) = params.at_least(app.hub.identity())? else {
        return Ok(());
    };
    if app
        .hub
        .wait_for(cursor.position.seq, AT_LEAST_WAIT_MAX)
        .await
    {
        Ok(())
    } else {
        Err(errors::unavailable(
            "at_least was not reached in time: an open transaction may hold the log back; see /v1/status",
        ))
    }
}

/// What the request wants to see, and from where.
///
/// # Errors
/// 400, 403 or 409.
pub fn place(
    app: &App,
    principal: &Principal,
    params: &ReadParams,
    resume: Option<&str>,
    default: Start,
) -> Result<(Arc<Filter>, Start), Problem> {
    let filter = Arc::new(params.filter(principal)?);
    let start = params.start(resume, default, app.hub.identity())?;
    Ok((filter, start))
}

fn write_page(
    app: &App,
    principal: &Principal,
    request: &Parts,
    format: Format,
    batch: &Batch,
    cache: &'static str,
) -> Result<Response, Problem> {
    let cursor = app.hub.identity().encode(batch.through);
    let (body, content_type) = match format {
        Format::Msgpack => (
            page_msgpack(&batch.events, &cursor, !batch.is_caught_up),
            "application/msgpack",
        ),
        Format::CloudEvents => (
            page_cloudevents(&batch.events),
            "application/cloudevents-batch+json",
        ),
        Format::Json | Format::Sse => (
            page_json(&batch.events, &cursor, !batch.is_caught_up),
            "application/json",
        ),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::VARY,
        HeaderValue::from_static("accept, authorization"),
    );
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(value) = HeaderValue::from_str(&cursor) {
        headers.insert("tidewire-cursor", value);
    }
    if cache != NO_STORE {
        let digest = data_encoding::BASE32HEX_NOPAD
            .encode(Sha256::digest(&body).get(..16).unwrap_or_default());
        let etag = format!("\"{}\"", digest.to_ascii_lowercase());
        let is_known = request
            .headers
            .get(header::IF_NONE_MATCH)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|known| {
                known
                    .split(',')
                    .map(|one| one.trim().trim_start_matches("W/"))
                    .any(|one| one == etag || one == "*")
            });
        if let Ok(value) = HeaderValue::from_str(&etag) {
            headers.insert(header::ETAG, value);
        }
        if is_known {
            headers.remove(header::CONTENT_TYPE);
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
    }
    let cut = request.extensions.get::<Cut>().cloned();
    let body = app.sessions.answer(&principal.tenant, body, cut);
    let body = body.map_err(|_| errors::full())?;
    if request.version != Version::HTTP_2 {
        return Ok((headers, body).into_response());
    }
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    let patience = request.extensions.get::<Patience>().copied();
    let idle = patience.unwrap_or_default().idle;
    Ok((headers, held::body(body, idle, &app.tasks)).into_response())
}

/// Writes events as the inside of a JSON array.
pub fn join_json(out: &mut Vec<u8>, events: &[Arc<Event>]) {
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&event.json);
    }
}

fn page_json(events: &[Arc<Event>], cursor: &str, has_more: bool) -> Bytes {
    let bytes: usize = events
        .iter()
        .map(|event| event.json.len().saturating_add(1))
        .sum();
    let mut out = Vec::with_capacity(bytes.saturating_add(96));
    out.extend_from_slice(b"{\"events\":[");
    join_json(&mut out, events);
    out.extend_from_slice(
        format!("],\"cursor\":\"{cursor}\",\"has_more\":{has_more}}}").as_bytes(),
    );
    out.into()
}

fn page_msgpack(events: &[Arc<Event>], cursor: &str, has_more: bool) -> Bytes {
    let mut out = vec![0x83];
    super::msgpack::text(&mut out, "events");
    super::msgpack::array(&mut out, events.len());
    for event in events {
        out.extend_from_slice(event.msgpack());
    }
    super::msgpack::text(&mut out, "cursor");
    super::msgpack::text(&mut out, cursor);
    super::msgpack::text(&mut out, "has_more");
    super::msgpack::boolean(&mut out, has_more);
    out.into()
}

fn page_cloudevents(events: &[Arc<Event>]) -> Bytes {
    let mut out = vec![b'['];
    for (index, event) in events
        .iter()
        .filter_map(|event| super::ingest::to_cloudevent(&event.json))
        .enumerate()
    {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&event);
    }
    out.push(b']');
    out.into()
}

/// The first of the media types in `Accept` that is spoken here; JSON if there is no such header.
fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let mut is_any_named = false;
    for value in headers.get_all(header::ACCEPT) {
        let text = value.to_str().unwrap_or_default();
        for item in text.split(',') {
            let name = item
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            is_any_named |= !name.is_empty();
            match name.as_str() {
                "application/json" | "application/*" | "*/*" => return Ok(Format::Json),
                "text/event-stream" => return Ok(Format::Sse),
                "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
                    return Ok(Format::Msgpack);
                }
                "application/cloudevents-batch+json" => return Ok(Format::CloudEvents),
                _ => {}
            }
        }
    }
    if is_any_named {
        return Err(Problem::new(
            Kind::NotAcceptable,
            "this answers application/json, application/msgpack, application/cloudevents-batch+json or text/event-stream",
        ));
    }
    Ok(Format::Json)
}
