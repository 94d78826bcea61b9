//! CloudEvents 1.0 as one resource among the forms: structured, batch and binary in, and the opposite way out.
//!
//! # Invariants
//! - What [`to_cloudevent`] writes is read back as the same event, but for what the log itself gives.
//! - What CloudEvents requires (`specversion`, `id`, `source`, `type`) is required, and nothing more.
//!
//! Decisions:
//! - `id` alone is the event's id. CloudEvents calls events the same where `source` and `id` agree; here an id is unique
//!   within the tenant. Two sources that count from 1 meet as `422 idempotency-conflict`, never silently: such a
//!   producer puts its name into the id.
//! - `type` must be a topic, and is not lowered for the sender: `Order` and `order` would become one.
//! - Attributes that have no place in an event (`dataschema`, unknown extensions) are passed over, as CloudEvents asks
//!   of intermediaries; so are `recordedtime` and `sequence`, which the log gives. `expect` is an extension of ours.
//! - `datacontenttype` is kept with bytes. Data of a JSON type is stored as JSON, and which JSON type is not kept.

mod attributes;
mod binary;
mod output;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::value::RawValue;

use self::attributes::Attributes;
use super::json::{self, text_of};
use super::{Decoded, IngestLimits, malformed, media};
use crate::event::fields::Fields;
use crate::event::new_event::{Draft, Fault, Refusal};
use crate::event::{Label, NewEvent};
use crate::http::problem::Problem;

pub use output::to_cloudevent;

const OCTET_STREAM: &str = "application/octet-stream";

/// Reads one CloudEvent from a JSON object.
pub(super) fn decode_structured(body: &[u8], limits: &IngestLimits) -> Result<Decoded, Problem> {
    json::decode_one(text_of(body)?, limits, parse)
}

/// Reads an array of CloudEvents.
pub(super) fn decode_batch(body: &[u8], limits: &IngestLimits) -> Result<Decoded, Problem> {
    if text_of(body)?.trim_start().starts_with('[') {
        json::decode(body, limits, parse)
    } else {
        json::value_of(text_of(body)?)?;
        Err(malformed(
            "a batch of CloudEvents is a JSON array".to_owned(),
        ))
    }
}

/// Reads one CloudEvent from headers, with the body as its data.
pub(super) fn decode_binary(
    headers: &HeaderMap,
    body: &[u8],
    limits: &IngestLimits,
) -> Result<Decoded, Problem> {
    let declared = media::content_type(headers)?;
    let event = binary::parse(headers, declared, body, limits.data_bytes)?;
    Ok(Decoded {
        events: vec![event],
        is_array: false,
    })
}

/// Reads one CloudEvent from the text of a JSON object.
fn parse(text: &str, data_bytes_max: usize) -> Result<NewEvent, Refusal> {
    let fields = Fields::read(text).map_err(|reason| Refusal::new(Fault::Malformed, "", reason))?;
    let mut attributes = Attributes::default();
    let mut data = None;
    let mut data_base64 = None;
    for (name, value) in fields {
        match name.as_str() {
            "data" => data = Some(value),
            _ if value.get() == "null" => {}
            "data_base64" => data_base64 = Some(value),
            known if Attributes::knows(known) => {
                attributes.set(known, &attribute_text(known, value)?)?;
            }
            _ => {}
        }
    }
    let content_type = attributes.content_type.take();
    let mut draft = attributes.finish()?;
    if let Some(value) = data {
        set_data(&mut draft, value, content_type.as_ref(), data_bytes_max)?;
    }
    if let Some(value) = data_base64 {
        draft.set("data_base64", value, data_bytes_max)?;
    }
    if draft.bytes.is_some() {
        draft.content_type = content_type.or_else(|| Label::parse(OCTET_STREAM).ok());
    }
    draft.finish()
}

/// An attribute's value as the text that a header would have.
fn attribute_text(name: &str, value: &RawValue) -> Result<String, Refusal> {
    match value.get() {
        word @ ("true" | "false") if name == "gdprconsent" => Ok(word.to_owned()),
        text => serde_json::from_str(text)
            .map_err(|_| refuse(name, "must be a string of valid Unicode")),
    }
}

/// `data` is the JSON value itself, unless the content type says that it is a text of another kind.
fn set_data(
    draft: &mut Draft,
    value: &RawValue,
    content_type: Option<&Label>,
    data_bytes_max: usize,
) -> Result<(), Refusal> {
    match content_type {
        Some(other) if !media::is_json(other.as_str()) => {
            if value.get() == "null" {
                return Ok(());
            }
            let text: String = serde_json::from_str(value.get()).map_err(|_| {
                refuse(
                    "data",
                    "must be a string, since datacontenttype is not a JSON type",
                )
            })?;
            draft.set_bytes(Bytes::from(text), data_bytes_max)
        }
        _ => draft.set_data(value, data_bytes_max),
    }
}

fn refuse(name: &str, reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(Fault::Invalid, name.to_owned(), reason)
}

#[cfg(test)]
mod tests;
