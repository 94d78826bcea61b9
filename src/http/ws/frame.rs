//! Frames: what a client may send, and how what it gets is written, as JSON or MessagePack.
//!
//! # Invariants
//! - A frame that cannot be read is answered with an error frame that says why; it never ends the connection's other work.
//! - Events are copied from their one encoded form, never encoded again.

use std::sync::Arc;

use axum::extract::ws::Message;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::event::Event;
use crate::event::encode::push_string;
use crate::feed::OnLag;
use crate::http::msgpack;
use crate::http::problem::Problem;

/// How frames are written on this socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text frames.
    Json,
    /// Binary frames.
    Msgpack,
}

/// What a client may send.
#[derive(Debug)]
pub enum ClientFrame {
    /// Begins a subscription.
    Subscribe(Box<Subscribe>),
    /// Ends one.
    Unsubscribe {
        /// Its id.
        id: String,
    },
    /// Stores events together or not at all.
    Append {
        /// Comes back with the answer.
        reference: Option<String>,
        /// Events, or one.
        events: Box<RawValue>,
        /// Gives events without an id the ids K:0, K:1, …
        idempotency_key: Option<String>,
    },
    /// Asks an agent to do something.
    Command {
        /// Comes back with the answer.
        reference: Option<String>,
        /// The command event's id, so that a retry is not a second command.
        id: Option<String>,
        /// The agent.
        subject: String,
        /// What to do.
        action: String,
        /// How.
        params: Option<Box<RawValue>>,
    },
    /// Answered by a pong.
    Ping {
        /// Comes back.
        timestamp: Option<Box<RawValue>>,
    },
    /// Replaces the credential before it ends.
    Auth {
        /// The new one.
        token: String,
    },
    /// Asks for the server's status.
    GetStatus {},
}

/// Begins a subscription.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// The client's name for it.
    pub id: String,
    /// Topic patterns; none: all that may be read.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Subjects; none: any.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// A cursor, `earliest` or `latest`, which is the default.
    pub after: Option<String>,
    /// What to do when it falls behind the window.
    #[serde(default)]
    pub on_lag: OnLag,
    /// Only 0 so far.
    #[serde(default)]
    pub conflate_ms: u64,
    /// Only false so far.
    #[serde(default)]
    pub with_state: bool,
}

/// A frame's type. Each frame is read a second time as what it is: reading it as a tagged enum would take its texts
/// apart, and the numbers in events would not stay exact.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    #[serde(rename = "ref")]
    reference: Option<String>,
    events: Box<RawValue>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    #[serde(rename = "ref")]
    reference: Option<String>,
    id: Option<String>,
    subject: String,
    action: String,
    params: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ping {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    timestamp: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetStatus {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
}

fn parse(json: &str) -> Result<ClientFrame, serde_json::Error> {
    use serde::de::Error as _;
    let Kind { kind } = serde_json::from_str(json)?;
    Ok(match kind.as_str() {
        "subscribe" => ClientFrame::Subscribe(serde_json::from_str(json)?),
        "unsubscribe" => {
            let Unsubscribe { id, .. } = serde_json::from_str(json)?;
            ClientFrame::Unsubscribe { id }
        }
        "append" => {
            let append: Append = serde_json::from_str(json)?;
            ClientFrame::Append {
                reference: append.reference,
                events: append.events,
                idempotency_key: append.idempotency_key,
            }
        }
        "command" => {
            let command: Command = serde_json::from_str(json)?;
            ClientFrame::Command {
                reference: command.reference,
                id: command.id,
                subject: command.subject,
                action: command.action,
                params: command.params,
            }
        }
        "ping" => {
            let Ping { timestamp, .. } = serde_json::from_str(json)?;
            ClientFrame::Ping { timestamp }
        }
        "auth" => {
            let Auth { token, .. } = serde_json::from_str(json)?;
            ClientFrame::Auth { token }
        }
        "get_status" => {
            let GetStatus { .. } = serde_json::from_str(json)?;
            ClientFrame::GetStatus {}
        }
        other => {
            let known = "subscribe, unsubscribe, append, command, ping, auth, get_status";
            let other: String = other.chars().take(64).collect();
            return Err(serde_json::Error::custom(format_args!(
                "the type {other:?} is none of {known}"
            )));
        }
    })
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not a frame of the contract.
    #[error("not a frame of this protocol: {0}")]
    Malformed(String),
    /// The other kind of frame than the subprotocol says.
    #[error("this subprotocol uses {0} frames")]
    Kind(&'static str),
}

/// Bytes of a frame's content.
#[must_use]
pub fn bytes(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => 0,
    }
}

/// Reads a client's frame; `None` for those the protocol itself answers.
///
/// # Errors
/// If it is not a frame of the contract.
pub fn read(encoding: Encoding, message: &Message) -> Result<Option<ClientFrame>, FrameError> {
    let json = match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => text.as_str().to_owned(),
        (Encoding::Msgpack, Message::Binary(bytes)) => {
            let value: serde_json::Value = rmp_serde::from_slice(bytes)
                .map_err(|error| FrameError::Malformed(error.to_string()))?;
            value.to_string()
        }
        (Encoding::Json, Message::Binary(_)) => return Err(FrameError::Kind("text")),
        (Encoding::Msgpack, Message::Text(_)) => return Err(FrameError::Kind("binary")),
        (_, Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => return Ok(None),
    };
    parse(&json)
        .map(Some)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

/// A frame without events.
#[must_use]
pub fn write(encoding: Encoding, frame: &serde_json::Value) -> Message {
    match encoding {
        Encoding::Json => Message::Text(frame.to_string().into()),
        Encoding::Msgpack => {
            Message::Binary(rmp_serde::to_vec_named(frame).unwrap_or_default().into())
        }
    }
}

/// `{"type":"events","id":…,"events":[…],"cursor":…}`.
#[must_use]
pub fn events(encoding: Encoding, id: &str, events: &[Arc<Event>], cursor: &str) -> Message {
    match encoding {
        Encoding::Json => {
            let bytes: usize = events
                .iter()
                .map(|event| event.json.len().saturating_add(1))
                .sum();
            let mut out = String::with_capacity(bytes.saturating_add(id.len()).saturating_add(96));
            out.push_str("{\"type\":\"events\",\"id\":");
            push_string(&mut out, id);
            out.push_str(",\"events\":[");
            for (index, event) in events.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                // Written by this program or the database as text: always UTF-8.
                out.push_str(std::str::from_utf8(&event.json).unwrap_or("null"));
            }
            out.push_str("],\"cursor\":\"");
            out.push_str(cursor);
            out.push_str("\"}");
            Message::Text(out.into())
        }
        Encoding::Msgpack => {
            let mut out = vec![0x84];
            for (name, value) in [("type", "events"), ("id", id), ("cursor", cursor)] {
                msgpack::text(&mut out, name);
                msgpack::text(&mut out, value);
            }
            msgpack::text(&mut out, "events");
            msgpack::array(&mut out, events.len());
            for event in events {
                out.extend_from_slice(event.msgpack());
            }
            Message::Binary(Bytes::from(out))
        }
    }
}

/// `{"type":"error",…}` from a problem.
#[must_use]
pub fn error(problem: &Problem, reference: Option<&str>, id: Option<&str>) -> serde_json::Value {
    let document: serde_json::Value = serde_json::from_str(&problem.to_json()).unwrap_or_default();
    let mut frame = serde_json::json!({
        "type": "error", "code": problem.kind.code(), "detail": problem.detail, "problem": document,
    });
    for (name, value) in [("ref", reference), ("id", id)] {
        if let (Some(value), Some(frame)) = (value, frame.as_object_mut()) {
            frame.insert(name.to_owned(), value.into());
        }
    }
    frame
}
