//! JSON pointers (RFC 6901) into the text of a line.
//!
//! # Invariants
//! - What is found is the text as it stands in the line: numbers and white space are not touched.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A path of member names and array places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    steps: Vec<String>,
}

impl Pointer {
    /// Reads a pointer: empty, or beginning with a slash.
    ///
    /// # Errors
    /// If it does neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps = match text.strip_prefix('/') {
            Some(rest) => rest
                .split('/')
                .map(|step| step.replace("~1", "/").replace("~0", "~"))
                .collect(),
            None if text.is_empty() => Vec::new(),
            None => return Err(format!("a JSON pointer begins with a slash: /{text}")),
        };
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// What it points to in `value`; `None` if there is nothing.
    #[must_use]
    pub fn find<'a>(&self, mut value: &'a RawValue) -> Option<&'a RawValue> {
        for step in &self.steps {
            let mut reader = serde_json::Deserializer::from_str(value.get());
            value = match value.get().trim_start().as_bytes().first() {
                Some(b'{') => Member(step).deserialize(&mut reader).ok()??,
                Some(b'[') => Element(step.parse().ok()?)
                    .deserialize(&mut reader)
                    .ok()??,
                _ => return None,
            };
        }
        Some(value)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The member of that name; the last one where it stands twice, as the database does.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);
        let mut found = None;
        while let Some(Name(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Element(usize);

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Option<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut at = 0_usize;
        let mut found = None;
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            if at == self.0 {
                found = Some(value);
            }
            at = at.saturating_add(1);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, text: &str) -> Option<String> {
        let value: &RawValue = serde_json::from_str(text).unwrap();
        let found = Pointer::parse(pointer).unwrap().find(value);
        found.map(|v| v.get().to_owned())
    }

    #[test]
    fn the_standard_by_example() {
        let text = r#"{"foo":["bar","baz"],"":0,"a/b":1.50,"m~n":8,"é":{"x":null},"\u0061":"esc","twice":1,"twice":2}"#;
        for (pointer, wanted) in [
            ("", Some(text)),
            ("/foo/0", Some("\"bar\"")),
            ("/foo/2", None),
            ("/foo/x", None),
            ("/", Some("0")),
            ("/a~1b", Some("1.50")),
            ("/m~0n", Some("8")),
            ("/é/x", Some("null")),
            ("/a", Some("\"esc\"")),
            ("/twice", Some("2")),
            ("/a/b", None),
            ("/nothing", None),
        ] {
            assert_eq!(find(pointer, text).as_deref(), wanted, "{pointer}");
        }
        assert!(Pointer::parse("foo").is_err());
    }
}
