//! A line of NDJSON on its way to the log.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Problem;

/// One event as a line, or why it cannot be sent.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number in the input, from 1; the answers name it.
    pub number: u64,
    /// Bytes of the input up to its end, for whoever shows progress.
    pub end: u64,
    /// The event's JSON text without a line feed. A refusal is answered in its place and never sent.
    pub event: Result<String, Problem>,
}

impl Line {
    /// Bytes it takes in memory and on the wire.
    pub(super) fn weight(&self) -> usize {
        self.event.as_ref().map_or(0, String::len).saturating_add(1)
    }

    /// Gives the event an id if it has none, so that sending it again stores nothing twice. The rest of the text stays
    /// as it is. What is no JSON object stays whole: its refusal is the server's to word.
    pub(super) fn ensure_id(mut self) -> Self {
        if let Ok(text) = &mut self.event {
            put_id(text);
        }
        self
    }
}

/// The lines that can be sent, as a request's body.
pub(super) fn body(lines: &VecDeque<Line>) -> String {
    let mut body = String::with_capacity(lines.iter().map(Line::weight).sum());
    for text in lines.iter().filter_map(|line| line.event.as_ref().ok()) {
        body.push_str(text);
        body.push('\n');
    }
    body
}

/// Whether `text` is a whole JSON value, rather than nothing or the beginning of one.
pub(super) fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

fn put_id(text: &mut String) {
    let Ok(Identified { id }) = serde_json::from_str(text) else {
        return;
    };
    if id.is_some() {
        return;
    }
    let new = format!("\"{}\"", Uuid::now_v7());
    match null_id(text) {
        // A null counts as absent, but must not stay beside the id.
        Some(at) => text.replace_range(at..at.saturating_add(4), &new),
        None => insert_id(text, &new),
    }
}

fn insert_id(text: &mut String, id: &str) {
    if let Some(at) = text.find('{') {
        let at = at.saturating_add(1);
        let is_empty = text
            .get(at..)
            .is_some_and(|t| t.trim_start().starts_with('}'));
        let comma = if is_empty { "" } else { "," };
        text.insert_str(at, &format!("\"id\":{id}{comma}"));
    }
}

/// Where the value of a top-level `"id": null` stands.
fn null_id(text: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Raw<'a>(#[serde(borrow)] std::collections::HashMap<String, &'a RawValue>);
    let Raw(fields) = serde_json::from_str(text).ok()?;
    let value = fields.get("id")?.get();
    // Borrowed from `text`, so the distance of the two is its place.
    value.as_ptr().addr().checked_sub(text.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_id(text: &str) -> String {
        let line = Line {
            number: 1,
            end: 0,
            event: Ok(text.to_owned()),
        };
        line.ensure_id().event.unwrap()
    }

    #[test]
    fn an_id_is_added_only_where_none_is() {
        for text in [
            r#"{"id":"a"}"#,
            r#"{"topic":"t","id":7}"#,
            "[1]",
            "{",
            "",
            "7",
        ] {
            assert_eq!(with_id(text), text);
        }
        for text in [
            "{}",
            " { } ",
            r#"{"topic":"a"}"#,
            r#"{"id":null,"topic":"a"}"#,
            r#"{"n":null,"id" : null}"#,
        ] {
            let value: serde_json::Value = serde_json::from_str(&with_id(text)).unwrap();
            assert!(
                Uuid::parse_str(value["id"].as_str().unwrap()).is_ok(),
                "{text}"
            );
            assert_eq!(with_id(text).matches("\"id\"").count(), 1);
        }
    }

    #[test]
    fn numbers_keep_their_text() {
        let text = with_id(r#"{"data":{"n":1.10e2,"id":null}}"#);
        assert!(
            text.ends_with(r#","data":{"n":1.10e2,"id":null}}"#),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = with_id(&text);
        }
    }
}
