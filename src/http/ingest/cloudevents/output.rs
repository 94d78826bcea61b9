//! An event of the log as a CloudEvent.
//!
//! # Invariants
//! - Values are copied as the text they are, so numbers in data stay exact.
//! - `source` is a URI reference, as CloudEvents requires: characters that may not stand in one are percent-encoded.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::event::encode::push_string;
use crate::event::fields::Fields;

/// The source of events that name none.
const NO_SOURCE: &str = "tidewire";

/// Turns an event's JSON object, as the log gives it, into a CloudEvent in JSON format; none if it is no such object.
///
/// An array of these is `application/cloudevents-batch+json`.
#[must_use]
pub fn to_cloudevent(event_json: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(event_json).ok()?;
    let mut out = String::with_capacity(text.len().saturating_add(128));
    out.push_str("{\"specversion\":\"1.0\"");
    let mut has_source = false;
    let mut payload = None;
    let mut content_type = None;
    for (name, value) in Fields::read(text).ok()? {
        let value = value.get();
        match name.as_str() {
            "id" | "priority" | "region" => push(&mut out, &name, value),
            "subject" => {
                push(&mut out, "subject", value);
                push(&mut out, "partitionkey", value);
            }
            "source" => {
                has_source = true;
                let source: String = serde_json::from_str(value).ok()?;
                push_text(&mut out, "source", &uri_reference(&source));
            }
            "topic" => push(&mut out, "type", value),
            "occurred_at" => push(&mut out, "time", value),
            "recorded_at" => push(&mut out, "recordedtime", value),
            "erased_at" => push(&mut out, "erasedtime", value),
            "cursor" => push(&mut out, "sequence", value),
            "trace" => push(&mut out, "traceparent", value),
            "gdpr" => push_gdpr(&mut out, value),
            "content_type" => content_type = Some(value),
            "data" | "data_base64" => payload = Some((name, value)),
            _ => {}
        }
    }
    if !has_source {
        push_text(&mut out, "source", NO_SOURCE);
    }
    if let Some((name, value)) = payload {
        push(
            &mut out,
            "datacontenttype",
            content_type.unwrap_or("\"application/json\""),
        );
        push(&mut out, &name, value);
    }
    out.push('}');
    Some(Bytes::from(out))
}

fn push(out: &mut String, name: &str, json: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(json);
}

fn push_text(out: &mut String, name: &str, text: &str) {
    push(out, name, "");
    push_string(out, text);
}

/// The two members that have an extension; whatever else stands in the object is not carried.
fn push_gdpr(out: &mut String, object: &str) {
    for (name, value) in Fields::read(object).into_iter().flatten() {
        match (name.as_str(), value.get()) {
            ("consent", word @ ("true" | "false")) => push(out, "gdprconsent", word),
            ("basis", text) if text.starts_with('"') => push(out, "gdprbasis", text),
            _ => {}
        }
    }
}

fn uri_reference(text: &str) -> String {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let behind = text
            .as_bytes()
            .get(at.saturating_add(1)..)
            .unwrap_or_default();
        let stands = match byte {
            b'%' => is_hex(behind.first()) && is_hex(behind.get(1)),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            other => other.is_ascii_graphic(),
        };
        if stands {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
