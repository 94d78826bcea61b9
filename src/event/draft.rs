//! The fields of an event as they are read, one by one.
//!
//! # Invariants
//! - A field that was set keeps its rule; `finish` checks what concerns several fields.

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use serde_json::value::RawValue;

use super::json::{self, Unstorable};
use super::limits::GDPR_BYTES_MAX;
use super::new_event::{Expect, Fault, NewEvent, Payload, Refusal, is_traceparent};
use super::{EventId, Label, Priority, Topic};

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
    pub priority: Option<Priority>,
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
                    EventId::parse(&text_of("id", value)?)
                        .map_err(|e| Refusal::invalid("id", e))?,
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
            "cursor" | "recorded_at" | "erased_at" => {}
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
        let priority = Priority::parse(text)
            .ok_or_else(|| Refusal::invalid("priority", "must be critical, high, normal or low"))?;
        self.priority = Some(priority);
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

    /// Sets the time of the fact, cut to microseconds and without leap seconds, which is what the database keeps.
    ///
    /// # Errors
    /// If `text` is not RFC 3339 or outside the years 1 to 9999.
    pub fn set_occurred_at(&mut self, field: &'static str, text: &str) -> Result<(), Refusal> {
        let time = DateTime::parse_from_rfc3339(text)
            .map_err(|e| Refusal::invalid(field, format_args!("must be an RFC 3339 time: {e}")))?
            .trunc_subsecs(6);
        // Counted so, 23:59:60 is the next second, and in the last year of all beyond it.
        let time = DateTime::from_timestamp_micros(time.timestamp_micros())
            .filter(|time| (1..=9999).contains(&time.year()));
        let out_of_range = || Refusal::invalid(field, "must lie within the years 1 to 9999");
        self.occurred_at = Some(time.ok_or_else(out_of_range)?);
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
            priority: self.priority.unwrap_or_default(),
            names_priority: self.priority.is_some(),
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
