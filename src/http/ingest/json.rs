//! A body of JSON: one object, or an array of them.
//!
//! # Invariants
//! - The whole body is checked to be JSON before any event is looked at, so that broken JSON is `400` with line and
//!   column whatever its members hold.
//! - Members are skipped over as text, which does not recurse; reading an array stops at the first member too many.

use std::fmt;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Decoded, IngestLimits, collect, malformed, too_many};
use crate::event::NewEvent;
use crate::event::new_event::Refusal;
use crate::http::problem::Problem;

/// How one object becomes an event: its text, and the bound on its data.
pub(super) type ParseOne = fn(&str, usize) -> Result<NewEvent, Refusal>;

/// Reads an event or an array of events.
pub(super) fn decode(
    body: &[u8],
    limits: &IngestLimits,
    parse: ParseOne,
) -> Result<Decoded, Problem> {
    let text = text_of(body)?;
    if text.trim_start().starts_with('[') {
        let members = members(text, limits)?;
        let parsed = members
            .iter()
            .map(|member| parse(member.get(), limits.data_bytes));
        Ok(Decoded {
            events: collect(parsed)?,
            is_array: true,
        })
    } else {
        decode_one(text, limits, parse)
    }
}

/// Reads one event; an array is refused.
pub(super) fn decode_one(
    text: &str,
    limits: &IngestLimits,
    parse: ParseOne,
) -> Result<Decoded, Problem> {
    let value = value_of(text)?;
    let events = collect(std::iter::once(parse(value.get(), limits.data_bytes)))?;
    Ok(Decoded {
        events,
        is_array: false,
    })
}

/// The body as text, without a byte order mark.
pub(super) fn text_of(body: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|err| malformed(format!("not UTF-8 from byte {} on", err.valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(malformed("the body is empty".to_owned()));
    }
    Ok(text)
}

/// The one JSON value that `text` is.
pub(super) fn value_of(text: &str) -> Result<&RawValue, Problem> {
    serde_json::from_str(text).map_err(|err| not_json(&err))
}

fn members<'a>(text: &'a str, limits: &IngestLimits) -> Result<Vec<&'a RawValue>, Problem> {
    let mut is_over = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let visitor = Members {
        count_max: limits.array_events,
        is_over: &mut is_over,
    };
    let read = deserializer
        .deserialize_seq(visitor)
        .and_then(|members| deserializer.end().map(|()| members));
    match read {
        _ if is_over => Err(too_many(limits)),
        Ok(members) => Ok(members),
        Err(err) => Err(not_json(&err)),
    }
}

fn not_json(err: &serde_json::Error) -> Problem {
    malformed(format!("not JSON: {err}"))
}

struct Members<'m> {
    count_max: usize,
    is_over: &'m mut bool,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = seq.next_element::<&'de RawValue>()? {
            if members.len() == self.count_max {
                *self.is_over = true;
                return Err(serde::de::Error::custom("too many events"));
            }
            members.push(member);
        }
        Ok(members)
    }
}
