//! The JSON object of an event, and the same as MessagePack.
//!
//! # Invariants
//! - One line: no raw line feed ever stands in it, so that it can be a line of NDJSON and of SSE.
//! - Absent fields are left out, not null. Data is the database's own text, so its numbers are exact.

use std::fmt::Write as _;

use base64::Engine as _;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Timelike, Utc};

/// The stored fields of an event, borrowed from wherever they were read.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The client's id.
    pub id: &'a str,
    /// The cursor's text.
    pub cursor: &'a str,
    /// What happened.
    pub topic: &'a str,
    /// What it happened to.
    pub subject: Option<&'a str>,
    /// Who said so.
    pub source: Option<&'a str>,
    /// The word.
    pub priority: &'a str,
    /// When it happened.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When the log took it.
    pub recorded_at: DateTime<Utc>,
    /// Where.
    pub region: Option<&'a str>,
    /// JSON text.
    pub gdpr: Option<&'a str>,
    /// Traceparent.
    pub trace: Option<&'a str>,
    /// JSON text.
    pub data: Option<&'a str>,
    /// Bytes, instead of data.
    pub bytes: Option<&'a [u8]>,
    /// Their media type.
    pub content_type: Option<&'a str>,
    /// When what it said was erased.
    pub erased_at: Option<DateTime<Utc>>,
}

/// A time as the contract writes it: UTC, milliseconds, or microseconds where there are any.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> String {
    let format = if time.nanosecond().is_multiple_of(1_000_000) {
        SecondsFormat::Millis
    } else {
        SecondsFormat::Micros
    };
    time.to_rfc3339_opts(format, true)
}

/// Writes `text` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(text.get(plain_from..at).unwrap_or_default());
        plain_from = at.saturating_add(1);
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
    }
    out.push_str(text.get(plain_from..).unwrap_or_default());
    out.push('"');
}

/// The JSON object of the contract.
#[must_use]
pub fn json(event: &Stored<'_>) -> Bytes {
    let payload = event
        .data
        .map_or(0, str::len)
        .saturating_add(event.bytes.map_or(0, <[u8]>::len).saturating_mul(2));
    let mut out = String::with_capacity(payload.saturating_add(384));
    out.push_str("{\"id\":");
    push_string(&mut out, event.id);
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            push_string(&mut out, value);
        }
    };
    text("cursor", Some(event.cursor));
    text("topic", Some(event.topic));
    text("subject", event.subject);
    text("source", event.source);
    text("priority", Some(event.priority));
    text("occurred_at", event.occurred_at.map(timestamp).as_deref());
    text("recorded_at", Some(&timestamp(event.recorded_at)));
    text("erased_at", event.erased_at.map(timestamp).as_deref());
    text("region", event.region);
    text("trace", event.trace);
    text("content_type", event.content_type);
    for (name, value) in [("gdpr", event.gdpr), ("data", event.data)] {
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            out.push_str(value);
        }
    }
    if let Some(bytes) = event.bytes {
        out.push_str(",\"data_base64\":\"");
        base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut out);
        out.push('"');
    }
    out.push('}');
    Bytes::from(out)
}

/// JSON text as MessagePack. Integers beyond 64 bits and decimals become floats: MessagePack has nothing exact for them.
#[must_use]
pub fn json_to_msgpack(json: &[u8]) -> Bytes {
    // The text was written by this module or by the database: that it parses is their promise, not the client's.
    let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    rmp_serde::to_vec_named(&value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_json_on_one_line(text in "(\\PC|[\\x00-\\x1f\"\\\\]){0,40}") {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert!(!out.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn absent_fields_are_left_out() {
        let at = DateTime::from_timestamp_micros(1_763_712_000_123_456).unwrap();
        let bytes = json(&Stored {
            id: "1",
            cursor: "c",
            topic: "a.b",
            subject: None,
            source: None,
            priority: "normal",
            occurred_at: None,
            recorded_at: at,
            region: None,
            gdpr: None,
            trace: None,
            data: Some("{\"n\": 1.10}"),
            bytes: None,
            content_type: None,
            erased_at: None,
        });
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"id":"1","cursor":"c","topic":"a.b","priority":"normal","recorded_at":"2025-11-21T08:00:00.123456Z","data":{"n": 1.10}}"#
        );
    }
}
