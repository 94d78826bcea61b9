//! Lines of any feed as events.
//!
//! # Invariants
//! - The same line at the same place of the input, mapped the same way, gives the same event with the same id: an import
//!   can be broken off and repeated, and what follows a known beginning can be added.
//! - Data is the line's own text, never parsed into numbers and back.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::lines::Input;
use super::pointer::Pointer;
use crate::client::{Line, Problem};
use crate::event::encode::{push_string, timestamp};

/// Where a field of the event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The same for each line.
    Literal(String),
    /// A place in the line.
    Pointer(Pointer),
}

impl FromStr for Field {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            Pointer::parse(text).map(Self::Pointer)
        } else if text.is_empty() {
            Err("give a JSON pointer such as /kind, or a literal".to_owned())
        } else {
            Ok(Self::Literal(text.to_owned()))
        }
    }
}

/// How the lines of a feed become events.
#[derive(Debug)]
pub struct Mapping {
    /// What happened.
    pub topic: Field,
    /// Stands before the topic.
    pub topic_prefix: String,
    /// What it happened to.
    pub subject: Option<Field>,
    /// The id; derived from the line and its number unless given.
    pub id: Option<Field>,
    /// When it happened.
    pub time: Option<Field>,
    /// Who says so.
    pub source: Option<Field>,
    /// What it carries; the whole line unless given.
    pub data: Option<Pointer>,
    /// How many lines had something for subject, time and source.
    pub found: [AtomicU64; 3],
}

impl Mapping {
    /// The event of a line of input.
    #[must_use]
    pub fn line(&self, input: Input) -> Line {
        let event = input.text.and_then(|text| self.event(&text, input.number));
        Line {
            number: input.number,
            end: input.end,
            event: event.map_err(Problem::malformed),
        }
    }

    /// Fields whose pointers led nowhere in any line: most likely a slip.
    #[must_use]
    pub fn idle_pointers(&self) -> Vec<String> {
        let names = ["--subject", "--time", "--source"];
        let fields = [&self.subject, &self.time, &self.source];
        let all = names.iter().zip(fields).zip(&self.found);
        all.filter(|(_, found)| found.load(Ordering::Relaxed) == 0)
            .filter_map(|((name, field), _)| match field {
                Some(Field::Pointer(pointer)) => Some(format!("{name} {pointer}")),
                _ => None,
            })
            .collect()
    }

    fn event(&self, text: &str, number: u64) -> Result<String, String> {
        let line: &RawValue =
            serde_json::from_str(text).map_err(|err| format!("the line is not JSON: {err}"))?;
        let topic = wanted(&self.topic, line, "--topic")?;
        let mut out = String::with_capacity(text.len().saturating_add(256));
        push_field(&mut out, "topic", &topic_of(&self.topic_prefix, &topic));
        let [subjects, times, sources] = &self.found;
        if let Some(subject) = optional(self.subject.as_ref(), line, "--subject", subjects)? {
            push_field(&mut out, "subject", &subject);
        }
        if let Some(source) = optional(self.source.as_ref(), line, "--source", sources)? {
            push_field(&mut out, "source", &source);
        }
        if let Some(time) = optional(self.time.as_ref(), line, "--time", times)? {
            push_field(&mut out, "occurred_at", &time_of(&time)?);
        }
        let data = match &self.data {
            None => line,
            Some(pointer) => pointer
                .find(line)
                .ok_or_else(|| format!("nothing at {pointer} (--data)"))?,
        };
        out.push_str(",\"data\":");
        out.push_str(data.get());
        let id = match &self.id {
            Some(field) => wanted(field, line, "--id")?,
            None => derived_id(&out, number),
        };
        let mut event =
            String::with_capacity(out.len().saturating_add(id.len()).saturating_add(16));
        event.push_str("{\"id\":");
        push_string(&mut event, &id);
        event.push_str(&out);
        event.push('}');
        Ok(event)
    }
}

fn push_field(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    push_string(out, value);
}

fn wanted(field: &Field, line: &RawValue, option: &str) -> Result<String, String> {
    let text = match field {
        Field::Literal(text) => return Ok(text.clone()),
        Field::Pointer(pointer) => pointer.find(line).map(scalar).transpose(),
    };
    let shown = || match field {
        Field::Literal(text) => text.clone(),
        Field::Pointer(pointer) => pointer.to_string(),
    };
    text.map_err(|()| format!("{} ({option}) is neither text nor a number", shown()))?
        .flatten()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| format!("nothing at {} ({option})", shown()))
}

/// Fields that an event can do without: absent where the line has nothing there.
fn optional(
    field: Option<&Field>,
    line: &RawValue,
    option: &str,
    found: &AtomicU64,
) -> Result<Option<String>, String> {
    let text = match field {
        None => return Ok(None),
        Some(Field::Literal(text)) => Some(text.clone()),
        Some(Field::Pointer(pointer)) => match pointer.find(line).map(scalar) {
            None => None,
            Some(Ok(text)) => text.filter(|text| !text.is_empty()),
            Some(Err(())) => {
                return Err(format!("{pointer} ({option}) is neither text nor a number"));
            }
        },
    };
    found.fetch_add(u64::from(text.is_some()), Ordering::Relaxed);
    Ok(text)
}

/// The text of a string, number or boolean; `None` for null.
fn scalar(value: &RawValue) -> Result<Option<String>, ()> {
    match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value.get()).map_err(|_| ()),
        Some(b'{' | b'[') => Err(()),
        Some(b'n') => Ok(None),
        _ => Ok(Some(value.get().to_owned())),
    }
}

/// Lower case; what no topic may hold becomes a hyphen.
fn topic_of(prefix: &str, text: &str) -> String {
    let cleaned = text.chars().flat_map(char::to_lowercase).map(|c| match c {
        'a'..='z' | '0'..='9' | '_' | '-' | '.' => c,
        _ => '-',
    });
    prefix.chars().chain(cleaned).collect()
}

/// RFC 3339 as it is; a number as seconds, milli-, micro- or nanoseconds since 1970, by its size.
fn time_of(text: &str) -> Result<String, String> {
    if DateTime::parse_from_rfc3339(text).is_ok() {
        return Ok(text.to_owned());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i64 = whole
        .parse()
        .map_err(|_| format!("{text:?} (--time) is neither an RFC 3339 time nor a number"))?;
    let micros = match number.unsigned_abs() {
        0..100_000_000_000 => {
            let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
            let fraction: i64 = digits
                .parse()
                .map_err(|_| format!("{text:?} (--time) is no number"))?;
            number.saturating_mul(1_000_000).saturating_add(fraction)
        }
        100_000_000_000..100_000_000_000_000 => number.saturating_mul(1_000),
        100_000_000_000_000..100_000_000_000_000_000 => number,
        _ => number.checked_div(1_000).unwrap_or_default(),
    };
    DateTime::<Utc>::from_timestamp_micros(micros)
        .map(timestamp)
        .ok_or_else(|| format!("{text:?} (--time) is no time"))
}

/// From all that the event says and the line's number, so that equal lines of one file stay apart and another mapping
/// is another event; from nothing else, so that the file may move.
fn derived_id(fields: &str, number: u64) -> String {
    let digest = Sha256::new()
        .chain_update(number.to_be_bytes())
        .chain_update(fields)
        .finalize();
    let short = digest.get(..16).unwrap_or_default();
    format!("import-{}", data_encoding::HEXLOWER.encode(short))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping() -> Mapping {
        Mapping {
            topic: Field::from_str("/kind").unwrap(),
            topic_prefix: "agent.".to_owned(),
            subject: Some(Field::from_str("/run").unwrap()),
            id: None,
            time: None,
            source: None,
            data: None,
            found: Default::default(),
        }
    }

    fn event(mapping: &Mapping, text: &str, number: u64) -> Result<serde_json::Value, String> {
        mapping
            .event(text, number)
            .map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn fields_come_from_where_they_are_said_to_be() {
        let github = Mapping {
            topic: Field::from_str("/type").unwrap(),
            topic_prefix: "github.".to_owned(),
            subject: Some(Field::from_str("/repo/name").unwrap()),
            id: Some(Field::from_str("/id").unwrap()),
            time: Some(Field::from_str("/created_at").unwrap()),
            source: Some(Field::from_str("github").unwrap()),
            data: Some(Pointer::parse("/payload").unwrap()),
            ..mapping()
        };
        let line = r#"{"id":123456789012345678901234567890,"type":"PushEvent","repo":{"name":"a/b"},"created_at":"2026-11-20T10:00:00Z","payload":{"n":1.10}}"#;
        let text = github.event(line, 1).unwrap();
        assert_eq!(
            text,
            r#"{"id":"123456789012345678901234567890","topic":"github.pushevent","subject":"a/b","source":"github","occurred_at":"2026-11-20T10:00:00Z","data":{"n":1.10}}"#
        );
        assert!(crate::event::new_event::parse(&text, 1_000).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let of = |text| event(&mapping(), text, 1).unwrap_err();
        assert_eq!(of(r#"{"run":"x"}"#), "nothing at /kind (--topic)");
        assert_eq!(
            of(r#"{"kind":{}}"#),
            "/kind (--topic) is neither text nor a number"
        );
        assert_eq!(
            of(r#"{"kind":"a","run":[]}"#),
            "/run (--subject) is neither text nor a number"
        );
        assert!(of("{").starts_with("the line is not JSON"));
        let mapping = mapping();
        let mapped = event(&mapping, r#"{"kind":"Tool Call/2","run":null}"#, 1).unwrap();
        assert_eq!(mapped["topic"], "agent.tool-call-2");
        assert!(mapped.get("subject").is_none());
        assert_eq!(mapping.idle_pointers(), ["--subject /run"]);
    }

    #[test]
    fn times_are_read_by_their_size() {
        for (text, wanted) in [
            ("2026-11-20T10:00:00+02:00", "2026-11-20T10:00:00+02:00"),
            ("1763712000", "2025-11-21T08:00:00.000Z"),
            ("1763712000.25", "2025-11-21T08:00:00.250Z"),
            ("1763712000123", "2025-11-21T08:00:00.123Z"),
            ("1763712000123456", "2025-11-21T08:00:00.123456Z"),
            ("1763712000123456789", "2025-11-21T08:00:00.123456Z"),
        ] {
            assert_eq!(time_of(text).unwrap(), wanted);
        }
        assert!(time_of("yesterday").is_err());
        assert!(time_of("1e3").is_err());
    }

    proptest! {
        #[test]
        fn derived_ids_repeat_and_differ(a in "[a-z]{1,4}", b in "[a-z]{1,4}", n in 1_u64..9, m in 1_u64..9) {
            let id = |kind: &str, number| {
                event(&mapping(), &format!(r#"{{"kind":"{kind}"}}"#), number).unwrap()["id"].clone()
            };
            prop_assert_eq!(id(&a, n) == id(&b, m), a == b && n == m);
        }

        #[test]
        fn no_line_makes_it_panic(text in "\\PC{0,80}", time in "[0-9.eE+-]{0,24}") {
            let _ = mapping().event(&text, 1);
            let _ = time_of(&time);
        }
    }
}
