//! A server of the contract's `/v1/events` in memory, which fails in whatever way a test asks for.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What happens to the next request instead of what should.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A problem document; with `Retry-After` if there is a number.
    Problem(u16, &'static str, Option<u64>),
    /// An append stores so many lines, answers so many, and breaks the line.
    CutAppend { stored: usize, answered: usize },
    /// An append ends its answer early, in good order.
    ShortAppend { answered: usize },
    /// One line (from 0) is turned away with a 503 of its own, the others are stored.
    TurnAway(usize),
    /// A stream breaks after so many bytes.
    CutFollow(usize),
    /// A stream ends after so many bytes.
    EndFollow(usize),
    /// A stream that says this and then nothing more.
    Say(&'static str),
    /// 204.
    NoMore,
}

/// What the server holds and has seen.
#[derive(Debug, Default)]
pub struct Log {
    /// The stored events in order.
    pub events: Vec<Value>,
    places: HashMap<String, usize>,
    /// Faults to come; the first is for the next request.
    pub faults: VecDeque<Fault>,
    /// Lines and bytes of every append.
    pub appends: Vec<(usize, usize)>,
    /// `Last-Event-ID` or `after` of every stream and page.
    pub reads: Vec<String>,
}

/// A running server; it ends with the test's runtime.
#[derive(Debug, Clone)]
pub struct Server {
    pub url: String,
    log: Arc<Mutex<Log>>,
    tail: watch::Sender<usize>,
}

/// Events of one message.
const MESSAGE_EVENTS: usize = 3;

pub fn cursor(seq: usize) -> String {
    format!("{seq:032}")
}

impl Server {
    pub async fn start(faults: impl IntoIterator<Item = Fault>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            log: Arc::default(),
            tail: watch::Sender::default(),
        };
        server.log().faults.extend(faults);
        let app = axum::Router::new()
            .route("/v1/events", get(read).post(append))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(server.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    /// The same under another address.
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores events of `topic`, as any other writer would.
    pub fn store(&self, count: usize, topic: &str) {
        for n in 0..count {
            self.store_one(json!({"id": format!("{topic}-{n}"), "topic": topic, "data": n}));
        }
    }

    /// The ids in log order.
    pub fn ids(&self) -> Vec<String> {
        let log = self.log();
        log.events
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn page(&self, from: usize, limit: usize) -> Vec<Value> {
        let log = self.log();
        log.events.iter().skip(from).take(limit).cloned().collect()
    }

    fn store_one(&self, mut event: Value) -> Value {
        let mut log = self.log();
        if event["topic"].as_str().is_none_or(|t| t.contains(' ')) {
            return json!({"error": {"type": "/problems/invalid-event", "title": "Invalid event", "status": 422,
                "detail": "topic: a topic may hold only a-z", "errors": [{"field": "topic", "reason": "a topic may hold only a-z"}]}});
        }
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let place = log.places.get(&id).copied();
        let duplicate = place.is_some();
        let place = place.unwrap_or_else(|| {
            let place = log.events.len() + 1;
            event["cursor"] = cursor(place).into();
            event["recorded_at"] = "2026-11-20T10:00:00.004Z".into();
            log.events.push(event.clone());
            log.places.insert(id, place);
            place
        });
        self.tail.send_replace(log.events.len());
        json!({"id": event["id"], "cursor": cursor(place), "duplicate": duplicate})
    }
}

fn problem(status: u16, code: &str, retry_after: Option<u64>) -> Response {
    let body = json!({"type": format!("/problems/{code}"), "title": code, "status": status, "earliest": cursor(1)});
    let mut response = (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        "application/problem+json".parse().unwrap(),
    );
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Sends the pieces, and then breaks the line if told so.
fn broken(pieces: Vec<String>, is_cut: bool) -> Body {
    let end = is_cut.then(|| Err(io::Error::other("cut")));
    let pieces = pieces.into_iter().map(|p| Ok(Bytes::from(p))).chain(end);
    Body::from_stream(stream::unfold(pieces, async |mut pieces| {
        // Each piece on its own, so that the client gets what came before the cut.
        tokio::task::yield_now().await;
        pieces.next().map(|piece| (piece, pieces))
    }))
}

async fn append(State(server): State<Server>, body: Bytes) -> Response {
    let lines: Vec<&[u8]> = body
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    let fault = {
        let mut log = server.log();
        log.appends.push((lines.len(), body.len()));
        log.faults.pop_front()
    };
    let (stored, answered, is_cut) = match fault {
        Some(Fault::Problem(status, code, after)) => return problem(status, code, after),
        Some(Fault::CutAppend { stored, answered }) => (stored, answered, true),
        Some(Fault::ShortAppend { answered }) => (lines.len(), answered, false),
        _ => (lines.len(), lines.len(), false),
    };
    let mut answers = Vec::new();
    for (at, line) in lines.iter().enumerate().take(stored) {
        let mut answer = match (&fault, serde_json::from_slice(line)) {
            (Some(Fault::TurnAway(away)), _) if *away == at => {
                json!({"error": {"type": "/problems/overloaded", "title": "Overloaded", "status": 503}})
            }
            (_, Ok(event)) => server.store_one(event),
            (_, Err(err)) => {
                json!({"error": {"type": "/problems/malformed", "title": "Malformed", "status": 400, "detail": err.to_string()}})
            }
        };
        answer["line"] = (at + 1).into();
        answers.push(format!("{answer}\n"));
    }
    answers.truncate(answered);
    broken(answers, is_cut).into_response()
}

async fn read(
    State(server): State<Server>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let parameter = |name: &str| {
        query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    let resumed = headers
        .get("Last-Event-ID")
        .map(|v| v.to_str().unwrap().to_owned());
    let after = resumed.or_else(|| parameter("after")).unwrap_or_default();
    let is_stream = headers
        .get(header::ACCEPT)
        .is_some_and(|v| v == "text/event-stream");
    let (fault, newest) = {
        let mut log = server.log();
        log.reads.push(after.clone());
        (log.faults.pop_front(), log.events.len())
    };
    let from = match after.as_str() {
        "latest" => newest,
        text => text.parse().unwrap_or(0),
    };
    match fault {
        Some(Fault::Problem(status, code, after)) => problem(status, code, after),
        Some(Fault::NoMore) => StatusCode::NO_CONTENT.into_response(),
        Some(Fault::Say(text)) => {
            let said = stream::iter([Ok::<_, Infallible>(text)]);
            let body = Body::from_stream(futures_util::StreamExt::chain(said, stream::pending()));
            ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        _ if is_stream => follow(server, from, fault.as_ref()),
        _ => {
            let limit = parameter("limit")
                .and_then(|text| text.parse().ok())
                .unwrap_or(100);
            let events = server.page(from, limit);
            let to = from + events.len();
            axum::Json(json!({"events": events, "cursor": cursor(to), "has_more": to < newest}))
                .into_response()
        }
    }
}

fn follow(server: Server, from: usize, fault: Option<&Fault>) -> Response {
    let (left, is_cut) = match fault {
        Some(Fault::CutFollow(bytes)) => (*bytes, true),
        Some(Fault::EndFollow(bytes)) => (*bytes, false),
        _ => (usize::MAX, false),
    };
    let state = (server.tail.subscribe(), server, from, left);
    let body = stream::unfold(Some(state), move |state| async move {
        let (mut tail, server, from, left) = state?;
        if left == 0 {
            return is_cut.then(|| (Err(io::Error::other("cut")), None));
        }
        tail.wait_for(|newest| *newest > from).await.ok()?;
        let events = server.page(from, MESSAGE_EVENTS);
        let to = from + events.len();
        let (to_text, data) = (cursor(to), Value::from(events));
        let mut text = format!(
            "id: {to_text}\ndata: {data}\n\nevent: heartbeat\nid: {to_text}\ndata: {{}}\n\n"
        );
        text.truncate(left);
        let left = left - text.len();
        Some((Ok(Bytes::from(text)), Some((tail, server, to, left))))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        Body::from_stream(body),
    )
        .into_response()
}
