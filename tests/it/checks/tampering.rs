//! A proxy that spoils what a server is asked and what it answers, on every transport.

mod harm;
mod socket;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, request};
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub use harm::{Harm, Way};

use crate::support::Api;
use harm::Doing;

/// What it spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// Nothing.
    Nothing,
    /// What is delivered.
    Delivered(Way, Harm),
    /// Acknowledges every array of this topic's last part, and stores nothing.
    StoresNothing(&'static str),
    /// Stores what is right of an array that is refused.
    StoresHalf,
    /// Stores what is sent again under another id.
    StoresAgain,
    /// Leaves out an answer of an upload.
    LosesAnswer,
    /// Leaves out what is expected.
    ForgetsExpectations,
    /// Leaves out which subjects are asked for.
    IgnoresSubjects,
    /// Answers a long-poll at once.
    DoesNotWait,
    /// Answers every page with the first credential that came, as a cache may.
    OneCredential,
    /// Answers 200 to what the server refuses.
    HidesRefusals,
    /// Says that the breaker is open.
    OpensBreaker,
    /// Does not reset it.
    DoesNotReset,
    /// Erases nothing, and says that it has failed.
    DoesNotErase,
    /// Erases nothing, and says that it has.
    SaysItErases,
    /// Says of every audit that there is one event less.
    CountsLess,
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

/// What every request has of the proxy.
#[derive(Debug, Clone)]
struct Proxy {
    upstream: String,
    http: reqwest::Client,
    spoil: Spoil,
    /// The first credential that came.
    first: Arc<OnceLock<HeaderValue>>,
    sent: Arc<AtomicUsize>,
}

impl Tampering {
    /// Before this server.
    pub async fn before(server: &Api, spoil: Spoil) -> Self {
        let proxy = Proxy {
            upstream: server.url.clone(),
            http: reqwest::Client::new(),
            spoil,
            first: Arc::default(),
            sent: Arc::default(),
        };
        let answer = move |request: Request| {
            let proxy = proxy.clone();
            async move { proxy.forward(request).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()));
        let router = Router::new().fallback(answer);
        #[expect(clippy::disallowed_methods, reason = "ended when dropped")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { api, task }
    }
}

fn answered(status: u16, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .body(body.into())
        .unwrap()
}

fn is_topic(event: &Value, end: &str) -> bool {
    let topic = event["topic"].as_str();
    topic.is_some_and(|topic| topic.ends_with(end))
}

impl Proxy {
    fn harm(&self, of: Way) -> Option<Harm> {
        match self.spoil {
            Spoil::Delivered(way, harm) if way == of => Some(harm),
            _ => None,
        }
    }

    async fn forward(&self, request: Request) -> Response {
        if socket::is_asked_for(&request) {
            let harm = self.harm(Way::Socket);
            let is_told_alone = self.spoil == Spoil::StoresNothing(".socket");
            return socket::forward(&self.upstream, (harm, is_told_alone), request).await;
        }
        let (mut parts, body) = request.into_parts();
        let mut body = axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap()
            .to_vec();
        let path = parts.uri.path().to_owned();
        let is_refused = match self.spoil {
            Spoil::DoesNotReset => path == "/v1/admin/breaker/reset",
            Spoil::DoesNotErase => parts.method == "DELETE" && path.starts_with("/v1/subjects/"),
            _ => false,
        };
        if is_refused {
            return answered(500, "no");
        }
        if self.spoil == Spoil::SaysItErases && parts.method == "DELETE" {
            return answered(200, r#"{"events":1,"is_complete":true}"#);
        }
        let mut renamed = None;
        if parts.method == "POST"
            && let Ok(Value::Array(events)) = serde_json::from_slice::<Value>(&body)
        {
            if let Some(answer) = self.instead(&parts, &events).await {
                return answer;
            }
            (body, renamed) = self.other(events);
        }
        self.as_another(&mut parts);
        let query = self.query(parts.uri.query().unwrap_or_default());
        let url = format!("{}{path}?{query}", self.upstream);
        let sent = self.http.request(parts.method, url).headers(parts.headers);
        let answer = sent.body(body).send().await.unwrap();
        self.answer(&path, renamed, answer).await
    }

    /// The answer to an array, where the server is not asked as it was meant.
    async fn instead(&self, parts: &request::Parts, events: &[Value]) -> Option<Response> {
        let authorization = parts.headers["authorization"].clone();
        match self.spoil {
            Spoil::StoresNothing(name) if events.iter().all(|event| is_topic(event, name)) => {
                // Any cursor that can be read: that of the log's end.
                let end = format!("{}/v1/events?after=latest&limit=1", self.upstream);
                let end = self.http.get(end).header("authorization", authorization);
                let end: Value = end.send().await.unwrap().json().await.unwrap();
                let told = |event: &Value| json!({"id": event["id"], "cursor": end["cursor"], "duplicate": false});
                let events: Vec<Value> = events.iter().map(told).collect();
                Some(answered(201, json!({ "events": events }).to_string()))
            }
            Spoil::StoresHalf if events.iter().any(|event| is_topic(event, "Topic")) => {
                let right = events.iter().filter(|event| !is_topic(event, "Topic"));
                let right: Vec<&Value> = right.collect();
                let post = self.http.post(format!("{}/v1/events", self.upstream));
                let post = post.header("authorization", authorization).json(&right);
                assert_eq!(post.send().await.unwrap().status(), 201);
                None
            }
            _ => None,
        }
    }

    /// What is sent in place of an array, and by which id an event's is replaced in it.
    fn other(&self, mut events: Vec<Value>) -> (Vec<u8>, Option<(String, String)>) {
        let mut renamed = None;
        match self.spoil {
            Spoil::ForgetsExpectations => {
                for event in &mut events {
                    event.as_object_mut().unwrap().remove("expect");
                }
            }
            Spoil::StoresAgain if is_topic(&events[0], ".retry") => {
                let id = events[0]["id"].as_str().unwrap().to_owned();
                let other = format!("{id}-{}", self.sent.fetch_add(1, Ordering::Relaxed));
                events[0]["id"] = json!(other);
                renamed = Some((other, id));
            }
            _ => {}
        }
        (Value::from(events).to_string().into_bytes(), renamed)
    }

    fn as_another(&self, parts: &mut request::Parts) {
        parts.headers.remove("host");
        parts.headers.remove("content-length");
        if self.spoil == Spoil::OneCredential
            && parts.method == "GET"
            && let Some(own) = parts.headers.get("authorization").cloned()
        {
            let shared = self.first.get_or_init(|| own).clone();
            parts.headers.insert("authorization", shared);
        }
    }

    fn query(&self, query: &str) -> String {
        let pairs = query.split('&');
        match self.spoil {
            Spoil::IgnoresSubjects => {
                let pairs = pairs.filter(|pair| !pair.starts_with("subjects="));
                pairs.collect::<Vec<_>>().join("&")
            }
            // As of now, whatever has come meanwhile.
            Spoil::DoesNotWait if query.contains("wait=") => {
                let topics = pairs.filter(|pair| pair.starts_with("topics="));
                topics.chain(["after=latest"]).collect::<Vec<_>>().join("&")
            }
            _ => query.to_owned(),
        }
    }

    async fn answer(
        &self,
        path: &str,
        renamed: Option<(String, String)>,
        answer: reqwest::Response,
    ) -> Response {
        let mut status = answer.status();
        if self.spoil == Spoil::HidesRefusals && status.is_client_error() {
            status = reqwest::StatusCode::OK;
        }
        let mut response = Response::builder().status(status);
        for name in ["content-type", "tidewire-cursor"] {
            if let Some(value) = answer.headers().get(name) {
                response = response.header(name, value);
            }
        }
        let content_type = answer.headers().get("content-type").cloned();
        let is = |name: &str| content_type.as_ref().is_some_and(|of| of == name);
        let body = if is("text/event-stream") {
            stream(answer, Doing::new(self.harm(Way::Sse)))
        } else if is("application/x-ndjson") && self.spoil == Spoil::LosesAnswer {
            let text = answer.text().await.unwrap();
            let left = text.lines().enumerate().filter(|(n, _)| *n != 1);
            let left: Vec<&str> = left.map(|(_, line)| line).collect();
            Body::from(left.join("\n"))
        } else if let Some((other, id)) = renamed {
            Body::from(answer.text().await.unwrap().replace(&other, &id))
        } else if is("application/json") {
            let mut document: Value = answer.json().await.unwrap();
            self.spoil(path, &mut document);
            Body::from(document.to_string())
        } else {
            Body::from_stream(answer.bytes_stream())
        };
        response.body(body).unwrap()
    }

    fn spoil(&self, path: &str, document: &mut Value) {
        match self.spoil {
            Spoil::OpensBreaker if path == "/v1/status" => {
                document["breaker"]["state"] = json!("open");
            }
            Spoil::CountsLess if path == "/v1/audit" => {
                document["count"] = json!(document["count"].as_u64().unwrap().saturating_sub(1));
            }
            // A page, and not what an append is answered.
            Spoil::Delivered(Way::Pages, harm) if document["cursor"].is_string() => {
                if let Some(events) = document["events"].as_array_mut() {
                    *events = Doing::new(Some(harm)).with(std::mem::take(events));
                }
            }
            _ => {}
        }
    }
}

/// Message by message.
fn stream(answer: reqwest::Response, mut doing: Doing) -> Body {
    let mut buffer = Vec::new();
    Body::from_stream(answer.bytes_stream().map(move |chunk| {
        buffer.extend_from_slice(&chunk?);
        let mut out = String::new();
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = buffer.drain(..end + 2).collect();
            for line in String::from_utf8(message).unwrap().lines() {
                let events = line.strip_prefix("data: ");
                let events = events.and_then(|text| serde_json::from_str(text).ok());
                let line = match events {
                    Some(Value::Array(events)) => {
                        format!("data: {}", Value::from(doing.with(events)))
                    }
                    _ => line.to_owned(),
                };
                out.push_str(&line);
                out.push('\n');
            }
            out.push('\n');
        }
        Ok::<_, reqwest::Error>(out)
    }))
}
