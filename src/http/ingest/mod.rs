//! From a request's headers and body to events: JSON, NDJSON, MessagePack and CloudEvents.
//!
//! # Invariants
//! - Pure: no I/O, no clock. Any bytes give events or a problem; none give a panic.
//! - Time and memory grow with the body's length alone: no recursion on input, nothing reserved for what a header
//!   merely claims.
//! - All or nothing: one event at fault refuses the request, and every event at fault is named.
//!
//! What cannot be read at all is `400 malformed`; what can be read but breaks a rule is `422`; what is beyond a bound
//! is `413`. An array without events is `422`: it is more likely a mistake of the sender than a wish.

mod cloudevents;
mod idempotency;
mod json;
mod lines;
mod media;
mod msgpack;

use axum::http::HeaderMap;

use crate::event::NewEvent;
use crate::event::limits::{ARRAY_EVENTS_MAX, BODY_BYTES_MAX, DATA_BYTES_MAX};
use crate::event::new_event::{self, Fault, Refusal};
use crate::http::problem::{ERRORS_MAX, Kind, Problem};

pub use cloudevents::to_cloudevent;
pub use idempotency::{KEY_BYTES_MAX, assign_ids, idempotency_key};
pub use lines::{Line, LineSplitter, LineTooLong};
pub use media::{ACCEPTED, Media, media_type};

/// The bounds that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestLimits {
    /// Events of one array. More: `413`.
    pub array_events: usize,
    /// Bytes of one event's data. More: `413`.
    pub data_bytes: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            array_events: ARRAY_EVENTS_MAX,
            data_bytes: DATA_BYTES_MAX,
        }
    }
}

/// The events of a request.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// In the order in which they stand.
    pub events: Vec<NewEvent>,
    /// Whether they came as an array, be it of one.
    pub is_array: bool,
}

/// Reads a whole body. The header `traceparent` becomes the trace of events that have none.
///
/// # Errors
/// 400 if the body is not of its form, 413 if there are too many events or data is too large, 422 if an event breaks a
/// rule.
pub fn decode(
    media: Media,
    headers: &HeaderMap,
    body: &[u8],
    limits: &IngestLimits,
) -> Result<Decoded, Problem> {
    let mut decoded = match media {
        Media::Json => json::decode(body, limits, new_event::parse),
        Media::Ndjson => decode_lines(body, limits),
        Media::Msgpack => msgpack::decode(body, limits),
        Media::CloudEventsStructured => cloudevents::decode_structured(body, limits),
        Media::CloudEventsBatch => cloudevents::decode_batch(body, limits),
        Media::CloudEventsBinary => cloudevents::decode_binary(headers, body, limits),
    }?;
    if let Some(trace) = traceparent(headers) {
        apply_trace(&mut decoded.events, trace);
    }
    Ok(decoded)
}

/// Reads JSON text: one event or an array of them.
///
/// # Errors
/// As [`decode`].
pub fn decode_text(text: &str, limits: &IngestLimits) -> Result<Decoded, Problem> {
    json::decode(text.as_bytes(), limits, new_event::parse)
}

/// Reads one line of NDJSON: one event.
///
/// # Errors
/// Why it is none.
pub fn decode_line(line: &[u8], limits: &IngestLimits) -> Result<NewEvent, Refusal> {
    let text = std::str::from_utf8(line)
        .map_err(|err| Refusal::new(Fault::Malformed, "", format_args!("not UTF-8: {err}")))?;
    new_event::parse(text, limits.data_bytes)
}

/// The JSON text of a frame of MessagePack.
///
/// # Errors
/// Why it has none.
pub fn frame_text(frame: &[u8]) -> Result<String, String> {
    /// A frame holds an array of events, which hold data.
    const DEPTH: usize = 3;
    msgpack::to_text(frame, BODY_BYTES_MAX, DEPTH)
}

/// The header `traceparent`, if it stands once and is valid; an invalid one means none, as W3C has it.
#[must_use]
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let text = values.next()?.to_str().ok()?.trim();
    (values.next().is_none() && new_event::is_traceparent(text)).then_some(text)
}

/// Gives `trace` to the events that have none.
pub fn apply_trace(events: &mut [NewEvent], trace: &str) {
    for event in events.iter_mut().filter(|event| event.trace.is_none()) {
        event.trace = Some(trace.to_owned());
    }
}

fn decode_lines(body: &[u8], limits: &IngestLimits) -> Result<Decoded, Problem> {
    let mut splitter = LineSplitter::new(body.len());
    splitter.push(bytes::Bytes::copy_from_slice(body));
    let mut lines = Vec::new();
    loop {
        let Some(line) = splitter.next_line().or_else(|| splitter.finish()) else {
            break;
        };
        // No line is longer than the body.
        lines.extend(line.ok());
        if lines.len() > limits.array_events {
            return Err(too_many(limits));
        }
    }
    let events = collect(lines.iter().map(|line| decode_line(&line.bytes, limits)))?;
    Ok(Decoded {
        events,
        is_array: true,
    })
}

/// The events of an array, or all that is wrong with them.
fn collect(
    members: impl Iterator<Item = Result<NewEvent, Refusal>>,
) -> Result<Vec<NewEvent>, Problem> {
    let mut events = Vec::new();
    let mut listed = Vec::new();
    let mut refused_count = 0_usize;
    for (index, member) in members.enumerate() {
        match member {
            Ok(event) if refused_count == 0 => events.push(event),
            Ok(_) => {}
            Err(refusal) => {
                refused_count = refused_count.saturating_add(1);
                if listed.len() < ERRORS_MAX {
                    listed.push((index, refusal));
                }
            }
        }
    }
    if refused_count > 0 {
        Err(Problem::refusals(&listed, refused_count))
    } else if events.is_empty() {
        Err(Problem::new(
            Kind::InvalidEvent,
            "there is no event in it: send at least one",
        ))
    } else {
        Ok(events)
    }
}

fn too_many(limits: &IngestLimits) -> Problem {
    let detail = format!(
        "more than {} events at once; application/x-ndjson takes any number",
        limits.array_events
    );
    Problem::new(Kind::TooLarge, detail)
}

fn malformed(detail: String) -> Problem {
    Problem::new(Kind::Malformed, detail)
}

#[cfg(test)]
mod tests;
