//! An event before it is written, and how its JSON form is read.
//!
//! # Invariants
//! - A `NewEvent` breaks no rule that the table would refuse: what passes here is stored or is a duplicate or a conflict.
//! - Every refusal names the field and the reason.
//! - Data is never parsed into numbers and back: its text goes to the database as it came.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

pub use super::draft::Draft;
use super::equal;
use super::fields::Fields;
use super::{EventId, Label, Priority, Topic};

/// What an event carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Nothing: the topic and the subject say it all.
    None,
    /// Any JSON value, as its text.
    Json(Box<RawValue>),
    /// Bytes and their media type.
    Bytes {
        /// The bytes.
        bytes: Bytes,
        /// Their media type.
        content_type: Label,
    },
}

/// What the writer expects the subject's newest event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The subject has no event yet.
    None,
    /// The text of that event's cursor; the log says whether it is one.
    Cursor(String),
}

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The client's id, if it gave one.
    pub id: Option<EventId>,
    /// What happened.
    pub topic: Topic,
    /// What it happened to.
    pub subject: Option<Label>,
    /// Who says so; the credential's name unless given.
    pub source: Option<Label>,
    /// How long it may wait.
    pub priority: Priority,
    /// Whether it says so itself; else the tenant may.
    pub names_priority: bool,
    /// When it happened, in microseconds.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Where.
    pub region: Option<Label>,
    /// Consent and legal basis: a JSON object.
    pub gdpr: Option<Box<RawValue>>,
    /// W3C traceparent.
    pub trace: Option<String>,
    /// What it carries.
    pub payload: Payload,
    /// Optimistic concurrency.
    pub expect: Option<Expect>,
}

impl NewEvent {
    /// Whether the log would take `other` for a retry of this event. What the transport adds (trace, priority, region,
    /// consent) does not count.
    #[must_use]
    pub fn has_same_content(&self, other: &Self) -> bool {
        let is_same_payload = match (&self.payload, &other.payload) {
            (Payload::None, Payload::None) => true,
            (Payload::Json(a), Payload::Json(b)) => equal::is_same(a.get(), b.get()),
            (
                Payload::Bytes {
                    bytes: a,
                    content_type: at,
                },
                Payload::Bytes {
                    bytes: b,
                    content_type: bt,
                },
            ) => a == b && at == bt,
            _ => false,
        };
        is_same_payload
            && self.topic == other.topic
            && self.subject == other.subject
            && self.source == other.source
            && self.occurred_at == other.occurred_at
    }

    /// Bytes of the payload: what the event weighs in queues and batches.
    #[must_use]
    pub fn weight(&self) -> usize {
        let payload = match &self.payload {
            Payload::None => 0,
            Payload::Json(text) => text.get().len(),
            Payload::Bytes { bytes, .. } => bytes.len(),
        };
        payload.saturating_add(256)
    }
}

/// What kind of refusal it is; the transport decides on a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON, or not an object.
    Malformed,
    /// A field breaks a rule.
    Invalid,
    /// JSON that the database cannot store.
    Unstorable,
    /// Data beyond the bound.
    TooLarge,
}

/// Why an event was refused: the field and a reason for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refusal {
    /// What kind of refusal.
    pub fault: Fault,
    /// The field; empty if it is the event as a whole.
    pub field: Cow<'static, str>,
    /// The reason, for people.
    pub reason: String,
}

impl Refusal {
    /// A refusal of `field`.
    pub fn new(
        fault: Fault,
        field: impl Into<Cow<'static, str>>,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            fault,
            field: field.into(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn invalid(field: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(Fault::Invalid, field, reason)
    }
}

/// Reads one event from the text of a JSON object.
///
/// `cursor`, `recorded_at` and `erased_at` are given by the log: they are passed over, so that what was read can be written again.
/// A field with the value null counts as absent, except `data`.
///
/// # Errors
/// The first field that breaks a rule.
pub fn parse(text: &str, data_bytes_max: usize) -> Result<NewEvent, Refusal> {
    let fields = Fields::read(text).map_err(|reason| Refusal::new(Fault::Malformed, "", reason))?;
    let mut draft = Draft::default();
    for (name, value) in fields {
        draft.set(&name, value, data_bytes_max)?;
    }
    draft.finish()
}

/// Whether `text` is a W3C traceparent: four groups of lower-case hex; version not ff, ids not all zero.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let mut parts = text.split('-');
    match (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) {
        (Some(version), Some(trace), Some(span), Some(flags), None) => {
            is_hex(version, 2)
                && version != "ff"
                && is_hex(trace, 32)
                && !is_zero(trace)
                && is_hex(span, 16)
                && !is_zero(span)
                && is_hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Fault, String) {
        let refusal = parse(text, 1000).unwrap_err();
        (refusal.fault, refusal.field.into_owned())
    }

    #[test]
    fn a_refusal_names_the_field() {
        assert_eq!(refused("[]").0, Fault::Malformed);
        assert_eq!(refused("{}"), (Fault::Invalid, "topic".into()));
        assert_eq!(
            refused(r#"{"topic":"A"}"#),
            (Fault::Invalid, "topic".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","tpoic":1}"#),
            (Fault::Invalid, "tpoic".into())
        );
        assert_eq!(refused(r#"{"topic":"a","topic":"b"}"#).0, Fault::Malformed);
        assert_eq!(
            refused(r#"{"topic":"a","id":7}"#),
            (Fault::Invalid, "id".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","subject":"x\u0000"}"#),
            (Fault::Invalid, "subject".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","subject":"\ud800"}"#),
            (Fault::Invalid, "subject".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","data":"\u0000"}"#),
            (Fault::Unstorable, "data".into())
        );
        assert_eq!(
            refused(&format!(r#"{{"topic":"a","data":"{}"}}"#, "x".repeat(1000))).0,
            Fault::TooLarge
        );
        assert_eq!(
            refused(r#"{"topic":"a","occurred_at":"yesterday"}"#),
            (Fault::Invalid, "occurred_at".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","data_base64":"AA=="}"#),
            (Fault::Invalid, "content_type".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","expect":"none"}"#),
            (Fault::Invalid, "expect".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","gdpr":true}"#),
            (Fault::Invalid, "gdpr".into())
        );
        assert_eq!(
            refused(r#"{"topic":"a","trace":"00-0-0-0"}"#),
            (Fault::Invalid, "trace".into())
        );
    }

    #[test]
    fn what_was_read_can_be_written_again() {
        let event = parse(
            r#"{"id":"1","cursor":"x","recorded_at":"y","topic":"a","subject":null,"data":{"n":1.10}}"#,
            1000,
        )
        .unwrap();
        let Payload::Json(text) = event.payload else {
            panic!("data is JSON")
        };
        assert_eq!(text.get(), r#"{"n":1.10}"#);
    }
}
