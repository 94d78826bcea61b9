//! The header `Idempotency-Key`, and the ids it gives to events without one.
//!
//! # Invariants
//! - Quoted or bare, the same key is the same key.
//! - A key with any index behind it is a valid id.

use axum::http::HeaderMap;

use crate::event::{EventId, NewEvent};
use crate::http::problem::{Kind, Problem};

/// Bytes of a key. More: `400`. Leaves room for the index within an id.
pub const KEY_BYTES_MAX: usize = 200;

/// Reads the key: a structured-field string (RFC 9651) or, as most clients send it, bare.
///
/// # Errors
/// 400 if it is empty, too long, not printable ASCII, wrongly quoted, or stands twice.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refuse("stands more than once"));
    }
    let text = value
        .to_str()
        .map_err(|_| refuse("may hold only printable ASCII characters"))?
        .trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None if text.contains('"') => return Err(refuse("has a quote that does not open it")),
        None => text.to_owned(),
    };
    if key.is_empty() {
        Err(refuse("is empty"))
    } else if key.len() > KEY_BYTES_MAX {
        Err(refuse(&format!("is longer than {KEY_BYTES_MAX} bytes")))
    } else if key.bytes().any(|b| b == b'\t') {
        Err(refuse("may hold only printable ASCII characters"))
    } else {
        Ok(Some(key))
    }
}

/// The text behind an opening quote. Parameters may follow the closing one; they mean nothing here.
fn unquote(quoted: &str) -> Result<String, Problem> {
    let mut key = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            Some('"') => break,
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => key.push(c),
                _ => {
                    return Err(refuse(
                        "has a backslash before neither a quote nor a backslash",
                    ));
                }
            },
            Some(c) => key.push(c),
            None => return Err(refuse("has no closing quote")),
        }
    }
    match chars.as_str().trim_start_matches(' ') {
        "" => Ok(key),
        parameters if parameters.starts_with(';') => Ok(key),
        _ => Err(refuse("goes on behind its closing quote")),
    }
}

fn refuse(reason: &str) -> Problem {
    Problem::new(
        Kind::Malformed,
        format!("the header Idempotency-Key {reason}"),
    )
}

/// Gives the events without an id the ids `key:first`, `key:first+1`, … by their place.
///
/// `first` is the place of the first of them within the request: 0 but for the later chunks of a stream.
pub fn assign_ids(events: &mut [NewEvent], key: &str, first: usize) {
    for (at, event) in events.iter_mut().enumerate() {
        if event.id.is_none() {
            event.id = EventId::parse(&format!("{key}:{}", first.saturating_add(at))).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::event::new_event::parse;

    fn key(value: &str) -> Result<Option<String>, Kind> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_str(value).unwrap());
        idempotency_key(&headers).map_err(|problem| problem.kind)
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(key("8e03-a b"), Ok(Some("8e03-a b".into())));
        assert_eq!(key(" \"8e03-a b\" "), Ok(Some("8e03-a b".into())));
        assert_eq!(key(r#""a\"\\b""#), Ok(Some(r#"a"\b"#.into())));
        assert_eq!(key("\"a\";p=1"), Ok(Some("a".into())));
        assert_eq!(key(&"k".repeat(200)), Ok(Some("k".repeat(200))));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn half_quoted_empty_and_long_keys_are_malformed() {
        let long = "k".repeat(201);
        for value in [
            "", "\"\"", "\"a", "a\"", "a\"b", "\"a\"b", r#""\x""#, "\"a\\", "a\tb", &long,
        ] {
            assert_eq!(key(value), Err(Kind::Malformed), "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append("idempotency-key", HeaderValue::from_static("a"));
        twice.append("idempotency-key", HeaderValue::from_static("a"));
        assert!(idempotency_key(&twice).is_err());
    }

    #[test]
    fn only_members_without_an_id_get_one() {
        let event = |text| parse(text, 1000).unwrap();
        let mut events = [
            event(r#"{"topic":"a"}"#),
            event(r#"{"topic":"a","id":"x"}"#),
            event(r#"{"topic":"a"}"#),
        ];
        assign_ids(&mut events, "K", 5);
        let ids: Vec<_> = events
            .iter()
            .map(|e| e.id.as_ref().unwrap().as_str())
            .collect();
        assert_eq!(ids, ["K:5", "x", "K:7"]);
    }

    proptest! {
        #[test]
        fn quoting_is_undone(text in "[ -~]{1,200}", first in any::<usize>()) {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(key(&quoted), Ok(Some(text.clone())));
            let mut events = [parse(r#"{"topic":"a"}"#, 1000).unwrap()];
            assign_ids(&mut events, &text, first);
            prop_assert!(events[0].id.is_some());
        }

        #[test]
        fn any_value_is_read_or_refused(value in "[\\t -~]{0,300}") {
            if let Ok(Some(key)) = key(&value) {
                prop_assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX);
            }
        }
    }
}
