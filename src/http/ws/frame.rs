//! Frames: what a client may send, and how what it gets is written, as JSON or MessagePack.
//!
//! # Invariants
//! - A frame that cannot be read is answered with an error frame that says why; it never ends the connection's other work.
//! - Events are copied from their one encoded form, never encoded again.

use axum::extract::ws::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::encode::push_string;
use crate::event::fields::{Fields, FieldsError};
use crate::event::json;
use crate::event::limits::FRAME_BYTES_MAX;
use crate::feed::OnLag;
use crate::http::ingest;
use crate::http::problem::{Kind, Problem};

/// How frames are written on this socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text frames.
    Json,
    /// Binary frames.
    Msgpack,
}

/// The `type` of every frame that a client may send.
pub const CLIENT_FRAMES: &[&str] = &[
    "subscribe",
    "unsubscribe",
    "append",
    "command",
    "ping",
    "auth",
    "get_status",
];

/// The `type` of every frame that the server sends.
pub const SERVER_FRAMES: &[&str] = &[
    "welcome",
    "subscribed",
    "unsubscribed",
    "events",
    "live",
    "gap",
    "cursor",
    "appended",
    "pong",
    "notice",
    "status",
    "error",
];

/// What a client may send.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
        #[serde(rename = "ref")]
        reference: Option<String>,
        /// Events, or one.
        events: Box<RawValue>,
        /// Gives events without an id the ids K:0, K:1, …
        idempotency_key: Option<String>,
    },
    /// Asks an agent to do something.
    Command {
        /// Comes back with the answer.
        #[serde(rename = "ref")]
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
    /// At most so often the newest event of each topic and subject; 0: all of them, at once.
    #[serde(default)]
    pub conflate_ms: u64,
    /// Only false so far.
    #[serde(default)]
    pub with_state: bool,
}

impl Subscribe {
    /// Topics and subjects.
    #[must_use]
    pub fn names(&self) -> usize {
        self.topics.len().saturating_add(self.subjects.len())
    }
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

/// Reads a client's frame; `None` for those the protocol itself answers.
///
/// # Errors
/// If it is not a frame of the contract.
pub fn read(encoding: Encoding, message: &Message) -> Result<Option<ClientFrame>, FrameError> {
    let text = match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => text.as_str().to_owned(),
        (Encoding::Msgpack, Message::Binary(bytes)) => {
            ingest::frame_text(bytes).map_err(FrameError::Malformed)?
        }
        (Encoding::Json, Message::Binary(_)) => return Err(FrameError::Kind("text")),
        (Encoding::Msgpack, Message::Text(_)) => return Err(FrameError::Kind("binary")),
        (_, Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => return Ok(None),
    };
    parse(&text).map(Some)
}

/// Moves `type` to the front, `{"ping":{…}}`: serde cannot keep raw JSON, which events and timestamps are, in a variant
/// that a member chooses.
fn parse(json: &str) -> Result<ClientFrame, FrameError> {
    let malformed = |reason: &dyn std::fmt::Display| FrameError::Malformed(reason.to_string());
    let fields = Fields::read(json).map_err(|error| match error {
        FieldsError::NotAnObject => malformed(&"it must be a JSON object"),
        FieldsError::Malformed(error) => malformed(&error),
    })?;
    let mut kind = None;
    let mut members = String::with_capacity(json.len());
    for (name, value) in fields {
        if name == "type" {
            kind = Some(value.get()).filter(|text| text.starts_with('"'));
            continue;
        }
        if !members.is_empty() {
            members.push(',');
        }
        push_string(&mut members, &name);
        members.push(':');
        members.push_str(value.get());
    }
    let kind = kind.ok_or_else(|| malformed(&"type must be a string"))?;
    serde_json::from_str(&format!("{{{kind}:{{{members}}}}}")).map_err(|error| malformed(&error))
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

/// `{"type":"pong","timestamp":…}`, the timestamp as it came.
///
/// # Errors
/// If it is nothing that the log could hold either, or no MessagePack.
pub fn pong(encoding: Encoding, timestamp: Option<&RawValue>) -> Result<Message, Problem> {
    let refused = |reason: &dyn std::fmt::Display| {
        Problem::new(Kind::UnstorableData, format!("timestamp: {reason}"))
    };
    let timestamp = timestamp.map_or("null", RawValue::get);
    json::check(timestamp, FRAME_BYTES_MAX).map_err(|error| refused(&error))?;
    match encoding {
        Encoding::Json => {
            let frame = format!(r#"{{"type":"pong","timestamp":{timestamp}}}"#);
            Ok(Message::Text(frame.into()))
        }
        Encoding::Msgpack => {
            let value: serde_json::Value =
                serde_json::from_str(timestamp).map_err(|error| refused(&error))?;
            let frame = serde_json::json!({"type": "pong", "timestamp": value});
            Ok(write(encoding, &frame))
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
    if let (Some(wait), Some(frame)) = (problem.retry_after, frame.as_object_mut()) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        frame.insert("retry_after_ms".to_owned(), wait.into());
    }
    for (name, value) in [("ref", reference), ("id", id)] {
        if let (Some(value), Some(frame)) = (value, frame.as_object_mut()) {
            frame.insert(name.to_owned(), value.into());
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_names_every_frame_that_is_read() {
        let frame = Message::Text(r#"{"type":"?"}"#.into());
        let error = read(Encoding::Json, &frame).unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").unwrap();
        let known: BTreeSet<&str> = known.split('`').skip(1).step_by(2).collect();
        assert_eq!(known, CLIENT_FRAMES.iter().copied().collect());
    }

    fn parsed(text: &str) -> Result<ClientFrame, FrameError> {
        read(Encoding::Json, &Message::Text(text.into())).map(Option::unwrap)
    }

    #[test]
    fn raw_json_comes_through_as_it_is() {
        let append = r#"{"ref":"r","events":[{"topic":"a","data":1.00}],"type":"append"}"#;
        match parsed(append) {
            Ok(ClientFrame::Append { events, .. }) => {
                assert_eq!(events.get(), r#"[{"topic":"a","data":1.00}]"#);
            }
            other => panic!("{other:?}"),
        }
        let ping = r#"{"type":"ping","timestamp":{"a":[1]}}"#;
        assert!(matches!(
            parsed(ping),
            Ok(ClientFrame::Ping { timestamp: Some(_) })
        ));
        let command = r#"{"type":"command","subject":"s","action":"pause","params":{"a":1}}"#;
        assert!(matches!(
            parsed(command),
            Ok(ClientFrame::Command {
                params: Some(_),
                ..
            })
        ));
        let subscribe = r#"{"type":"subscribe","id":"s","on_lag":"skip"}"#;
        assert!(matches!(parsed(subscribe), Ok(ClientFrame::Subscribe(_))));
        assert!(matches!(
            parsed(r#"{"type":"get_status"}"#),
            Ok(ClientFrame::GetStatus {})
        ));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"?"}"#,
            r#"{"type":"ping","x":1}"#,
            r#"{"type":"ping","type":"ping"}"#,
            r#"{"type":"auth"}"#,
            r#"{"ping":{}}"#,
        ] {
            assert!(
                matches!(parsed(text), Err(FrameError::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn messagepack_is_the_same() {
        let value = serde_json::json!({"type": "append", "ref": "r", "events": {"topic": "a"}});
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        let frame = read(Encoding::Msgpack, &Message::Binary(bytes.into())).unwrap();
        assert!(matches!(frame, Some(ClientFrame::Append { .. })));
    }

    /// Frames are written where they are sent, so the sources are searched for what follows `"type"`.
    #[test]
    fn the_list_names_every_frame_that_is_sent() {
        let own = include_str!("frame.rs").split("mod tests").next().unwrap();
        let sources = [
            own,
            include_str!("delivery.rs"),
            include_str!("page.rs"),
            include_str!("socket.rs"),
            include_str!("requests.rs"),
            include_str!("watching.rs"),
            include_str!("../status.rs"),
        ];
        let mut sent = BTreeSet::new();
        for source in sources {
            for behind in source.split("\"type\"").skip(1) {
                let mut parts = behind.split('"');
                if let (Some(":" | ": " | ", " | ".into(), "), Some(name)) =
                    (parts.next(), parts.next())
                {
                    sent.insert(name);
                }
            }
        }
        assert_eq!(sent, SERVER_FRAMES.iter().copied().collect());
    }
}
