//! A proxy that spoils what a server answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::Api;

/// What it spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// Nothing.
    Nothing,
    /// Drops the fifth message of every stream that has events.
    DropsMessage,
    /// Sends the fifth message of every stream twice.
    RepeatsMessage,
    /// Acknowledges every append of this topic's last part, and stores nothing.
    StoresNothing(&'static str),
    /// Changes a word in the data of pages.
    ChangesPages,
    /// Answers everybody with the first credential that came.
    OneCredential,
    /// Answers 200 to what the server refuses.
    HidesRefusals,
}

/// The proxy; gone when dropped.
pub struct Tampering {
    /// Its API.
    pub api: Api,
    task: JoinHandle<()>,
}

impl Drop for Tampering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tampering {
    /// Before this server.
    pub async fn before(server: &Api, spoil: Spoil) -> Self {
        let (upstream, http) = (server.url.clone(), reqwest::Client::new());
        let first = Arc::new(std::sync::OnceLock::new());
        let answer = move |request: Request| {
            let (upstream, http, first) = (upstream.clone(), http.clone(), Arc::clone(&first));
            async move { forward(&upstream, &http, &first, spoil, request).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(answer);
        #[expect(clippy::disallowed_methods, reason = "ended when dropped")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { api, task }
    }
}

async fn forward(
    upstream: &str,
    http: &reqwest::Client,
    first: &std::sync::OnceLock<axum::http::HeaderValue>,
    spoil: Spoil,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    if let Spoil::StoresNothing(name) = spoil
        && parts.method == "POST"
        && let Ok(Value::Array(events)) = serde_json::from_slice::<Value>(&body)
        && events.iter().all(|event| {
            event["topic"]
                .as_str()
                .is_some_and(|topic| topic.ends_with(name))
        })
    {
        // Any cursor that can be read: that of the log's end.
        let end = http.get(format!("{upstream}/v1/events?after=latest&limit=1"));
        let authorization = parts.headers["authorization"].clone();
        let end: Value = end
            .header("authorization", authorization)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let events = events
            .iter()
            .map(|event| json!({"id": event["id"], "cursor": end["cursor"], "duplicate": false}));
        let answer = json!({"events": events.collect::<Vec<_>>()}).to_string();
        return Response::builder()
            .status(201)
            .body(Body::from(answer))
            .unwrap();
    }
    if spoil == Spoil::OneCredential
        && let Some(own) = parts.headers.get("authorization").cloned()
    {
        let shared = first.get_or_init(|| own).clone();
        parts.headers.insert("authorization", shared);
    }
    parts.headers.remove("host");
    let url = format!("{upstream}{}", parts.uri);
    let sent = http
        .request(parts.method, url)
        .headers(parts.headers)
        .body(body);
    let answer = sent.send().await.unwrap();
    let is_stream = answer
        .headers()
        .get("content-type")
        .is_some_and(|of| of == "text/event-stream");
    let mut status = answer.status();
    if spoil == Spoil::HidesRefusals && status.is_client_error() {
        status = reqwest::StatusCode::OK;
    }
    let mut response = Response::builder().status(status);
    for name in ["content-type", "tidewire-cursor"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value);
        }
    }
    let body = if is_stream {
        stream(answer, spoil)
    } else if spoil == Spoil::ChangesPages {
        let text = answer.text().await.unwrap();
        Body::from(text.replace("tide ", "ebb "))
    } else {
        Body::from_stream(answer.bytes_stream())
    };
    response.body(body).unwrap()
}

/// Message by message.
fn stream(answer: reqwest::Response, spoil: Spoil) -> Body {
    let count = AtomicUsize::new(0);
    let mut buffer = Vec::new();
    Body::from_stream(answer.bytes_stream().map(move |chunk| {
        buffer.extend_from_slice(&chunk?);
        let mut out = Vec::new();
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = buffer.drain(..end + 2).collect();
            let has_events = message.windows(8).any(|part| part == b"data: [{");
            let is_fifth = has_events && count.fetch_add(1, Ordering::Relaxed) == 4;
            let times = match spoil {
                Spoil::DropsMessage if is_fifth => 0,
                Spoil::RepeatsMessage if is_fifth => 2,
                _ => 1,
            };
            for _ in 0..times {
                out.extend_from_slice(&message);
            }
        }
        Ok::<_, reqwest::Error>(out)
    }))
}
