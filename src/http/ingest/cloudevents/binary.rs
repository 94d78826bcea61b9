//! Binary mode: attributes in `ce-` headers, data in the body.
//!
//! # Invariants
//! - A header's value is read as the HTTP binding says: quotes undone, then percent-encoding, then UTF-8. Raw UTF-8,
//!   which several SDKs send, comes through as it is, and so does a percent sign that encodes nothing.
//! - The body becomes JSON only if its type says so, or if there is no type and it parses.

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;

use super::{Attributes, OCTET_STREAM, json, malformed, media, refuse, text_of};
use crate::event::new_event::{Draft, Refusal};
use crate::event::{Label, NewEvent};
use crate::http::problem::Problem;

/// Reads one CloudEvent; `declared` is the value of Content-Type.
pub(super) fn parse(
    headers: &HeaderMap,
    declared: Option<&str>,
    body: &[u8],
    data_bytes_max: usize,
) -> Result<NewEvent, Problem> {
    let refused = |refusal: Refusal| Problem::refused(0, &refusal);
    let mut attributes = attributes(headers).map_err(refused)?;
    // In binary mode Content-Type says what the data is; SDKs that send the attribute instead mean the same.
    let content_type = match declared {
        Some(text) => Some(Label::parse(text).map_err(|e| refused(refuse("content-type", e)))?),
        None => attributes.content_type.take(),
    };
    let mut draft = attributes.finish().map_err(refused)?;
    if !body.is_empty() {
        match content_type {
            Some(text) if media::is_json(text.as_str()) => {
                let value = json::value_of(text_of(body)?)
                    .map_err(|problem| malformed(format!("the data is {}", problem.detail)))?;
                draft.set_data(value, data_bytes_max).map_err(refused)?;
            }
            None if let Ok(value) = serde_json::from_slice(body) => {
                draft.set_data(value, data_bytes_max).map_err(refused)?;
            }
            other => set_bytes(&mut draft, other, body, data_bytes_max).map_err(refused)?,
        }
    }
    draft.finish().map_err(refused)
}

fn set_bytes(
    draft: &mut Draft,
    content_type: Option<Label>,
    body: &[u8],
    data_bytes_max: usize,
) -> Result<(), Refusal> {
    let set = draft.set_bytes(Bytes::copy_from_slice(body), data_bytes_max);
    set.map_err(|refusal| Refusal {
        field: "data".into(),
        ..refusal
    })?;
    draft.content_type = content_type.or_else(|| Label::parse(OCTET_STREAM).ok());
    Ok(())
}

fn attributes(headers: &HeaderMap) -> Result<Attributes, Refusal> {
    let mut attributes = Attributes::default();
    for header in headers.keys() {
        let Some(name) = header.as_str().strip_prefix("ce-") else {
            continue;
        };
        if !Attributes::knows(name) {
            continue;
        }
        let mut values = headers.get_all(header).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => attributes.set(name, &attribute_text(name, value)?)?,
            _ => return Err(refuse(name, "stands more than once")),
        }
    }
    Ok(attributes)
}

fn attribute_text(name: &str, value: &HeaderValue) -> Result<String, Refusal> {
    let bytes = percent_decode(&unquote(value.as_bytes().trim_ascii()));
    String::from_utf8(bytes).map_err(|_| refuse(name, "is not UTF-8, raw or percent-encoded"))
}

/// The text within double quotes, as senders of the specification's first edition write it.
fn unquote(value: &[u8]) -> Vec<u8> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return value.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            other => out.push(other),
        }
    }
    out
}

fn percent_decode(value: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, behind)) = rest.split_first() {
        let pair = (digit(behind.first()), digit(behind.get(1)));
        rest = if let (b'%', (Some(high), Some(low))) = (byte, pair) {
            out.extend(u8::try_from(high * 16 + low));
            behind.get(2..).unwrap_or_default()
        } else {
            out.push(*byte);
            behind
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &[u8]) -> Option<String> {
        attribute_text("subject", &HeaderValue::from_bytes(value).unwrap()).ok()
    }

    #[test]
    fn raw_quoted_and_encoded_values() {
        assert_eq!(text("Zoë €".as_bytes()).as_deref(), Some("Zoë €"));
        assert_eq!(text(b"Zo%C3%AB%20%e2%82%ac").as_deref(), Some("Zoë €"));
        assert_eq!(text(br#""a \"b\" \\ c""#).as_deref(), Some(r#"a "b" \ c"#));
        assert_eq!(text(b"100%25").as_deref(), Some("100%"));
        assert_eq!(text(b"100%").as_deref(), Some("100%"));
        assert_eq!(text(b"%zz %4").as_deref(), Some("%zz %4"));
        assert_eq!(text(b"\"").as_deref(), Some("\""));
        assert_eq!(text(b"Zo\xeb"), None);
        assert_eq!(text(b"%ff"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(value in "\\PC{1,40}") {
            let encoded: Vec<_> = value.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(text(encoded.concat().as_bytes()), Some(value));
        }
    }
}
