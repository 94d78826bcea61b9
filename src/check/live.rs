//! Readers that are told as it comes: by server-sent events, and over a WebSocket.

use std::time::Duration;

use serde_json::{Value, json};

use super::flaw::Flaw;
use super::probe::contract;
use crate::client::{Client, Following, Selection, Socket, Start, Step};

/// How long the next event may take that is there already.
const DELIVERY_MAX: Duration = Duration::from_secs(3);

/// Which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Server-sent events.
    Sse,
    /// WebSocket.
    WebSocket,
}

/// A reader of one topic pattern.
#[derive(Debug)]
pub enum Live {
    /// Server-sent events.
    Sse(Box<Following>),
    /// WebSocket.
    WebSocket(Box<Socket>),
}

impl Live {
    /// Opens one, which the server has taken in when this returns; it is told of what follows `after`.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn open(
        wire: Wire,
        client: &Client,
        topics: &str,
        after: &str,
    ) -> Result<Self, Flaw> {
        if wire == Wire::Sse {
            let selection = Selection {
                topics: vec![topics.to_owned()],
                subjects: Vec::new(),
            };
            let mut following = client.follow(selection, Start::After(after.to_owned()));
            // What is written from here on is to be delivered live, not found in the log.
            following.open().await?;
            return Ok(Self::Sse(Box::new(following)));
        }
        let mut socket = client.socket().await?;
        let subscribe =
            json!({ "type": "subscribe", "id": "check", "topics": [topics], "after": after });
        socket.send(&subscribe).await?;
        loop {
            let frame = socket.next().await?;
            match frame.get("type").and_then(Value::as_str) {
                Some("subscribed") => return Ok(Self::WebSocket(Box::new(socket))),
                Some("error") => return Err(refused(&frame)),
                _ => {}
            }
        }
    }

    /// The next events and the cursor after them; of a stream that broke it is the client that goes on.
    ///
    /// # Errors
    /// If the server refuses, or a WebSocket breaks.
    pub async fn next(&mut self) -> Result<(Vec<Value>, String), Flaw> {
        loop {
            let (events, cursor) = self.step().await?;
            if !events.is_empty() {
                return Ok((events, cursor));
            }
        }
    }

    /// The same; also without events, when the server says how far it has looked.
    ///
    /// # Errors
    /// As [`Live::next`].
    pub async fn step(&mut self) -> Result<(Vec<Value>, String), Flaw> {
        loop {
            match self {
                Self::Sse(following) => match following.next().await? {
                    Some(Step::Events { events, cursor }) => {
                        let events = events.iter().map(|one| serde_json::from_str(one.get()));
                        let events: Result<_, _> = events.collect();
                        let events = events.map_err(|_| contract("an event is no JSON"))?;
                        return Ok((events, cursor));
                    }
                    Some(Step::Moved { cursor }) => return Ok((Vec::new(), cursor)),
                    Some(Step::Retrying { .. }) => {}
                    None => return Err(contract("the stream has ended for good")),
                },
                Self::WebSocket(socket) => {
                    let frame = socket.next().await?;
                    match frame.get("type").and_then(Value::as_str) {
                        Some("events") => return delivered(&frame),
                        Some("error" | "gap") => return Err(refused(&frame)),
                        Some("live" | "cursor") => {
                            let cursor = frame.get("cursor").and_then(Value::as_str);
                            return Ok((Vec::new(), cursor.unwrap_or_default().to_owned()));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// Events up to and with the one of this id, and the last cursor; fewer if the next takes too long.
    ///
    /// # Errors
    /// As [`Live::next`].
    pub async fn until(&mut self, last: &str) -> Result<(Vec<Value>, String), Flaw> {
        let (mut all, mut at) = (Vec::new(), String::new());
        let is_last = |event: &Value| event.get("id").and_then(Value::as_str) == Some(last);
        while !all.iter().any(is_last) {
            let Ok(next) = tokio::time::timeout(DELIVERY_MAX, self.next()).await else {
                break;
            };
            let (events, cursor) = next?;
            all.extend(events);
            at = cursor;
        }
        Ok((all, at))
    }
}

fn delivered(frame: &Value) -> Result<(Vec<Value>, String), Flaw> {
    let events = frame.get("events").and_then(Value::as_array);
    let cursor = frame.get("cursor").and_then(Value::as_str);
    match (events, cursor) {
        (Some(events), Some(cursor)) => Ok((events.clone(), cursor.to_owned())),
        _ => Err(contract(
            "an events frame without events or without its cursor",
        )),
    }
}

/// An error in place of what was asked for.
pub(super) fn refused(frame: &Value) -> Flaw {
    Flaw::failed(
        format!("the WebSocket answers {frame}"),
        "Use a credential that may read and write check.*; GET /v1/status says whether the server is overloaded.",
    )
}
