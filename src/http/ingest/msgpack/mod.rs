//! A body of MessagePack: one map, or an array of them, with the field names of JSON.
//!
//! # Invariants
//! - Values become JSON text and take the same way from there: one set of rules for both forms.
//! - The text a value becomes is bounded while it grows, since a byte of MessagePack may take twenty of JSON.
//! - Depth is a list of what is still to come, bounded as data is; nothing recurses.
//!
//! Binary may stand as the value of `data` only, with `content_type` beside it; within data it is refused, since JSON
//! has no such thing. So are extension types (times are RFC 3339 strings), keys that are not strings, NaN and infinity.

mod token;

use bytes::Bytes;
use serde_json::value::RawValue;

use self::token::{Reader, Token, TokenError};
use super::{Decoded, IngestLimits, collect, malformed, too_many};
use crate::event::NewEvent;
use crate::event::encode::push_string;
use crate::event::json::Unstorable;
use crate::event::limits::{DATA_DEPTH_MAX, EVENT_FIELDS_MAX};
use crate::event::new_event::{Draft, Fault, Refusal};
use crate::http::problem::Problem;

/// Reads an event or an array of events.
pub(super) fn decode(body: &[u8], limits: &IngestLimits) -> Result<Decoded, Problem> {
    if body.is_empty() {
        return Err(malformed("the body is empty".to_owned()));
    }
    let (members, is_array) = members(body, limits)?;
    let events = collect(
        members
            .into_iter()
            .map(|member| parse(member, limits.data_bytes)),
    )?;
    Ok(Decoded { events, is_array })
}

/// The JSON text of one value that is no event: a frame. It may be nested `depth` deeper than an event's data.
///
/// # Errors
/// Why it is none.
pub(super) fn to_text(bytes: &[u8], bytes_max: usize, depth: usize) -> Result<String, String> {
    let mut reader = Reader::new(bytes);
    let depth_max = DATA_DEPTH_MAX.saturating_add(depth);
    let text = to_json(&mut reader, bytes_max, depth_max).map_err(|(_, reason)| reason)?;
    if reader.is_at_end() {
        Ok(text)
    } else {
        Err(format!(
            "something follows the value that ends at byte {}",
            reader.at()
        ))
    }
}

fn members<'a>(body: &'a [u8], limits: &IngestLimits) -> Result<(Vec<&'a [u8]>, bool), Problem> {
    let broken = |err: TokenError| malformed(format!("not MessagePack: {err}"));
    let mut reader = Reader::new(body);
    let mut ahead = reader;
    let (members, is_array) = match ahead.token().map_err(broken)? {
        Token::Array(count) => {
            if usize::try_from(count).is_ok_and(|count| count > limits.array_events) {
                return Err(too_many(limits));
            }
            reader = ahead;
            let members: Result<Vec<_>, _> = (0..count).map(|_| reader.skip()).collect();
            (members.map_err(broken)?, true)
        }
        _ => (vec![reader.skip().map_err(broken)?], false),
    };
    if reader.is_at_end() {
        Ok((members, is_array))
    } else {
        Err(malformed(format!(
            "something follows the value that ends at byte {}",
            reader.at()
        )))
    }
}

fn refuse(fault: Fault, field: &str, reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(fault, field.to_owned(), reason)
}

/// Reads the event that `member` is, which is known to be one whole value.
fn parse(member: &[u8], data_bytes_max: usize) -> Result<NewEvent, Refusal> {
    let mut reader = Reader::new(member);
    let broken = |err: TokenError| refuse(Fault::Malformed, "", err);
    let Token::Map(count) = reader.token().map_err(broken)? else {
        return Err(refuse(Fault::Malformed, "", "must be a map"));
    };
    if usize::try_from(count).is_ok_and(|count| count > EVENT_FIELDS_MAX) {
        let reason = format!("not an event: more than {EVENT_FIELDS_MAX} fields");
        return Err(refuse(Fault::Malformed, "", reason));
    }
    let mut draft = Draft::default();
    let mut names: Vec<&str> = Vec::new();
    for _ in 0..count {
        let Token::Text(name) = reader.token().map_err(broken)? else {
            return Err(refuse(
                Fault::Malformed,
                "",
                "the keys of an event must be strings",
            ));
        };
        let name = std::str::from_utf8(name)
            .map_err(|_| refuse(Fault::Malformed, "", "a key is not UTF-8"))?;
        if names.contains(&name) {
            let reason = format!("not an event: the field {name:?} stands twice");
            return Err(refuse(Fault::Malformed, "", reason));
        }
        names.push(name);
        set(&mut draft, name, &mut reader, data_bytes_max)?;
    }
    draft.finish()
}

fn set(
    draft: &mut Draft,
    name: &str,
    reader: &mut Reader<'_>,
    data_bytes_max: usize,
) -> Result<(), Refusal> {
    let mut ahead = *reader;
    if let ("data", Ok(Token::Bytes(bytes))) = (name, ahead.token()) {
        *reader = ahead;
        return draft
            .set_bytes(Bytes::copy_from_slice(bytes), data_bytes_max)
            .map_err(|refusal| Refusal {
                field: "data".into(),
                ..refusal
            });
    }
    // Base64 is a third longer than what it stands for.
    let text_bytes_max = data_bytes_max.saturating_mul(2);
    let text = to_json(reader, text_bytes_max, DATA_DEPTH_MAX)
        .map_err(|(fault, reason)| refuse(fault, name, reason))?;
    let value = RawValue::from_string(text).map_err(|err| refuse(Fault::Malformed, name, err))?;
    draft.set(name, &value, data_bytes_max)
}

/// What is still to come of an array or a map.
enum Open {
    Array(u32),
    Map(u32),
}

type Refused = (Fault, String);

/// Writes one value as JSON text.
fn to_json(reader: &mut Reader<'_>, bytes_max: usize, depth_max: usize) -> Result<String, Refused> {
    let mut out = String::new();
    let mut open: Vec<Open> = Vec::new();
    loop {
        match reader
            .token()
            .map_err(|err| (Fault::Malformed, err.to_string()))?
        {
            Token::Array(count) => {
                out.push('[');
                open.push(Open::Array(count));
            }
            Token::Map(count) => {
                out.push('{');
                open.push(Open::Map(count));
            }
            scalar => push_scalar(&mut out, scalar, bytes_max)?,
        }
        if open.len() > depth_max {
            return Err((Fault::Unstorable, Unstorable::TooDeep.to_string()));
        }
        // Ends what is complete, then leads on to the next value.
        loop {
            let (left, close) = match open.last_mut() {
                None => return Ok(out),
                Some(Open::Array(left)) => (left, ']'),
                Some(Open::Map(left)) => (left, '}'),
            };
            if *left > 0 {
                *left -= 1;
                break;
            }
            out.push(close);
            open.pop();
        }
        if !out.ends_with(['[', '{']) {
            out.push(',');
        }
        if matches!(open.last(), Some(Open::Map(_))) {
            push_key(&mut out, reader, bytes_max)?;
        }
        if out.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
    }
}

fn push_key(out: &mut String, reader: &mut Reader<'_>, bytes_max: usize) -> Result<(), Refused> {
    match reader.token() {
        Ok(key @ Token::Text(_)) => push_scalar(out, key, bytes_max)?,
        Ok(_) => {
            return Err((
                Fault::Invalid,
                "the keys of a map must be strings".to_owned(),
            ));
        }
        Err(err) => return Err((Fault::Malformed, err.to_string())),
    }
    out.push(':');
    Ok(())
}

fn push_scalar(out: &mut String, token: Token<'_>, bytes_max: usize) -> Result<(), Refused> {
    let invalid = |reason: &str| Err((Fault::Invalid, reason.to_owned()));
    match token {
        Token::Nil => out.push_str("null"),
        Token::Bool(true) => out.push_str("true"),
        Token::Bool(false) => out.push_str("false"),
        Token::Unsigned(number) => out.push_str(&number.to_string()),
        Token::Signed(number) => out.push_str(&number.to_string()),
        Token::Float(number) => match serde_json::Number::from_f64(number) {
            Some(number) => out.push_str(&number.to_string()),
            None => return invalid("NaN and infinity are not numbers of JSON"),
        },
        Token::Text(text) if text.len() > bytes_max => return Err(too_large(bytes_max)),
        Token::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => push_string(out, text),
            Err(_) => return invalid("a string is not UTF-8"),
        },
        Token::Bytes(_) => {
            return invalid(
                "binary within JSON: let data itself be binary, with content_type, or send base64 text",
            );
        }
        Token::Extension => {
            return invalid("extension types are not taken; send times as RFC 3339 strings");
        }
        Token::Array(_) | Token::Map(_) => {}
    }
    Ok(())
}

fn too_large(bytes_max: usize) -> Refused {
    (
        Fault::TooLarge,
        format!("is more than {bytes_max} bytes as JSON"),
    )
}

#[cfg(test)]
mod tests;
