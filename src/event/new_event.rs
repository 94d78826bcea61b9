//! An event before it is written, and how its JSON form is read.
//!
//! # Invariants
//! - A `NewEvent` breaks no rule that the table would refuse: what passes here is stored or is a duplicate or a conflict.
//! - Every refusal names the field and the reason.
//! - Data is never parsed into numbers and back: its text goes to the database as it came.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Datelike, SubsecRound, Utc};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::json::{self, Unstorable};
use super::limits::GDPR_BYTES_MAX;
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
    /// consent) does not count; JSON counts as text here, stricter than in the database.
    #[must_use]
    pub fn has_same_content(&self, other: &Self) -> bool {
        let is_same_payload = match (&self.payload, &other.payload) {
            (Payload::None, Payload::None) => true,
            (Payload::Json(a), Payload::Json(b)) => a.get() == b.get(),
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

    fn invalid(field: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(Fault::Invalid, field, reason)
    }
}

/// Reads one event from the text of a JSON object.
///
/// `cursor` and `recorded_at` are given by the log: they are passed over, so that what was read can be written again.
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

/// Fields as they are read; `finish` checks what concerns several.
#[derive(Debug, Default)]
pub struct Draft {
    /// See [`NewEvent::id`].
    pub id: Option<EventId>,
    /// See [`NewEvent::topic`].
    pub topic: Option<Topic>,
    /// See [`NewEvent::subject`].
    pub subject: Option<Label>,
    /// See [`NewEvent::source`].
    pub source: Option<Label>,
    /// See [`NewEvent::priority`].
    pub priority: Priority,
    /// See [`NewEvent::occurred_at`].
    pub occurred_at: Option<DateTime<Utc>>,
    /// See [`NewEvent::region`].
    pub region: Option<Label>,
    /// See [`NewEvent::gdpr`].
    pub gdpr: Option<Box<RawValue>>,
    /// See [`NewEvent::trace`].
    pub trace: Option<String>,
    /// JSON payload.
    pub data: Option<Box<RawValue>>,
    /// Payload as bytes.
    pub bytes: Option<Bytes>,
    /// Media type of the bytes.
    pub content_type: Option<Label>,
    /// See [`NewEvent::expect`].
    pub expect: Option<Expect>,
}

impl Draft {
    /// Reads one field of an event's JSON object.
    ///
    /// # Errors
    /// If the field is unknown or breaks a rule.
    pub fn set(
        &mut self,
        name: &str,
        value: &RawValue,
        data_bytes_max: usize,
    ) -> Result<(), Refusal> {
        if name == "data" {
            return self.set_data(value, data_bytes_max);
        }
        if value.get() == "null" {
            return Ok(());
        }
        match name {
            "id" => {
                self.id = Some(
                    EventId::parse(text_of("id", value)?).map_err(|e| Refusal::invalid("id", e))?,
                );
            }
            "topic" => self.set_topic(&text_of("topic", value)?)?,
            "subject" => self.subject = Some(label("subject", &text_of("subject", value)?)?),
            "source" => self.source = Some(label("source", &text_of("source", value)?)?),
            "priority" => self.set_priority(&text_of("priority", value)?)?,
            "occurred_at" => {
                self.set_occurred_at("occurred_at", &text_of("occurred_at", value)?)?;
            }
            "region" => self.set_region("region", &text_of("region", value)?)?,
            "gdpr" => self.set_gdpr(value)?,
            "trace" => self.set_trace("trace", &text_of("trace", value)?)?,
            "data_base64" => self.set_base64(&text_of("data_base64", value)?, data_bytes_max)?,
            "content_type" => {
                self.content_type = Some(label("content_type", &text_of("content_type", value)?)?);
            }
            "expect" => self.set_expect(text_of("expect", value)?),
            "cursor" | "recorded_at" => {}
            other => {
                return Err(Refusal::new(
                    Fault::Invalid,
                    other.to_owned(),
                    "is not a field of an event",
                ));
            }
        }
        Ok(())
    }

    /// Sets the topic.
    ///
    /// # Errors
    /// If `text` is not a topic.
    pub fn set_topic(&mut self, text: &str) -> Result<(), Refusal> {
        self.topic = Some(Topic::parse(text).map_err(|e| Refusal::invalid("topic", e))?);
        Ok(())
    }

    /// Sets the priority.
    ///
    /// # Errors
    /// If `text` is not one of the four words.
    pub fn set_priority(&mut self, text: &str) -> Result<(), Refusal> {
        self.priority = Priority::parse(text)
            .ok_or_else(|| Refusal::invalid("priority", "must be critical, high, normal or low"))?;
        Ok(())
    }

    /// Sets the region.
    ///
    /// # Errors
    /// If `text` is empty, too long or holds control characters.
    pub fn set_region(&mut self, field: &'static str, text: &str) -> Result<(), Refusal> {
        self.region = Some(Label::parse_short(text).map_err(|e| Refusal::invalid(field, e))?);
        Ok(())
    }

    /// Sets the time of the fact, cut to microseconds, which is what the database keeps.
    ///
    /// # Errors
    /// If `text` is not RFC 3339 or outside the years 1 to 9999.
    pub fn set_occurred_at(&mut self, field: &'static str, text: &str) -> Result<(), Refusal> {
        let time = DateTime::parse_from_rfc3339(text)
            .map_err(|e| Refusal::invalid(field, format_args!("must be an RFC 3339 time: {e}")))?
            .with_timezone(&Utc);
        if !(1..=9999).contains(&time.year()) {
            return Err(Refusal::invalid(
                field,
                "must lie within the years 1 to 9999",
            ));
        }
        self.occurred_at = Some(time.trunc_subsecs(6));
        Ok(())
    }

    /// Sets the trace.
    ///
    /// # Errors
    /// If `text` is not a W3C traceparent of version 00 to fe.
    pub fn set_trace(&mut self, field: &'static str, text: &str) -> Result<(), Refusal> {
        if !is_traceparent(text) {
            return Err(Refusal::invalid(
                field,
                "must be a W3C traceparent: 00-<32 hex>-<16 hex>-<2 hex>",
            ));
        }
        self.trace = Some(text.to_owned());
        Ok(())
    }

    /// Sets what the writer expects.
    pub fn set_expect(&mut self, text: String) {
        self.expect = Some(if text == "none" {
            Expect::None
        } else {
            Expect::Cursor(text)
        });
    }

    /// Sets the JSON payload.
    ///
    /// # Errors
    /// If the database cannot hold it.
    pub fn set_data(&mut self, value: &RawValue, data_bytes_max: usize) -> Result<(), Refusal> {
        json::check(value.get(), data_bytes_max).map_err(|err| {
            let fault = match err {
                Unstorable::TooLarge { .. } => Fault::TooLarge,
                _ => Fault::Unstorable,
            };
            Refusal::new(fault, "data", err)
        })?;
        self.data = Some(value.to_owned());
        Ok(())
    }

    fn set_base64(&mut self, text: &str, data_bytes_max: usize) -> Result<(), Refusal> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| Refusal::invalid("data_base64", format_args!("is not base64: {e}")))?;
        self.set_bytes(bytes.into(), data_bytes_max)
    }

    /// Sets the payload as bytes.
    ///
    /// # Errors
    /// If there are more than the bound.
    pub fn set_bytes(&mut self, bytes: Bytes, data_bytes_max: usize) -> Result<(), Refusal> {
        if bytes.len() > data_bytes_max {
            let reason =
                format_args!("is {} bytes; at most {data_bytes_max}", bytes.len()).to_string();
            return Err(Refusal::new(Fault::TooLarge, "data_base64", reason));
        }
        self.bytes = Some(bytes);
        Ok(())
    }

    fn set_gdpr(&mut self, value: &RawValue) -> Result<(), Refusal> {
        if !value.get().starts_with('{') {
            return Err(Refusal::invalid("gdpr", "must be an object"));
        }
        json::check(value.get(), GDPR_BYTES_MAX).map_err(|e| Refusal::invalid("gdpr", e))?;
        self.gdpr = Some(value.to_owned());
        Ok(())
    }

    /// The event, if its fields go together.
    ///
    /// # Errors
    /// If there is no topic, two payloads, bytes without a media type or the reverse, or `expect` without a subject.
    pub fn finish(self) -> Result<NewEvent, Refusal> {
        let topic = self
            .topic
            .ok_or_else(|| Refusal::invalid("topic", "is missing"))?;
        let payload = match (self.data, self.bytes, self.content_type) {
            (None, None, None) => Payload::None,
            (Some(text), None, None) => Payload::Json(text),
            (None, Some(bytes), Some(content_type)) => Payload::Bytes {
                bytes,
                content_type,
            },
            (Some(_), Some(_), _) => {
                return Err(Refusal::invalid(
                    "data_base64",
                    "an event carries data or data_base64, not both",
                ));
            }
            (_, Some(_), None) => {
                return Err(Refusal::invalid(
                    "content_type",
                    "is missing: data_base64 needs one",
                ));
            }
            (_, None, Some(_)) => {
                return Err(Refusal::invalid(
                    "content_type",
                    "goes with data_base64; data is JSON",
                ));
            }
        };
        if self.expect.is_some() && self.subject.is_none() {
            return Err(Refusal::invalid("expect", "needs a subject"));
        }
        Ok(NewEvent {
            id: self.id,
            topic,
            subject: self.subject,
            source: self.source,
            priority: self.priority,
            occurred_at: self.occurred_at,
            region: self.region,
            gdpr: self.gdpr,
            trace: self.trace,
            payload,
            expect: self.expect,
        })
    }
}

fn text_of(field: &'static str, value: &RawValue) -> Result<String, Refusal> {
    serde_json::from_str(value.get())
        .map_err(|_| Refusal::invalid(field, "must be a string of valid Unicode"))
}

fn label(field: &'static str, text: &str) -> Result<Label, Refusal> {
    Label::parse(text).map_err(|e| Refusal::invalid(field, e))
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
