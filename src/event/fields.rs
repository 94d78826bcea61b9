//! The members of one JSON object as they stand: names read, values left as text.
//!
//! # Invariants
//! - No name stands twice, and there are at most [`EVENT_FIELDS_MAX`]: a body of a million tiny members costs what it
//!   takes to notice that there are too many.
//! - Values are skipped, not parsed, and skipping does not recurse: nesting of any depth costs a byte a level.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::limits::EVENT_FIELDS_MAX;

/// The members of an object, in the order in which they stand.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(String, &'a RawValue)>);

/// Why a text is not an object whose members can be told apart.
#[derive(Debug, thiserror::Error)]
pub enum FieldsError {
    /// A value of another type.
    #[error("must be a JSON object")]
    NotAnObject,
    /// Not JSON, a name that stands twice, or too many names.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl<'a> Fields<'a> {
    /// Reads the members of the object in `text`.
    ///
    /// # Errors
    /// If it is not an object, a name stands twice or there are too many.
    pub fn read(text: &'a str) -> Result<Self, FieldsError> {
        // Looked at first, because the parser's own message would quote a string of any length.
        if !text.trim_start().starts_with('{') {
            return Err(FieldsError::NotAnObject);
        }
        Ok(serde_json::from_str(text)?)
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = (String, &'a RawValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(String, &'de RawValue)> = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(format_args!(
                            "the field {name:?} stands twice"
                        )));
                    }
                    if fields.len() == EVENT_FIELDS_MAX {
                        return Err(de::Error::custom(format_args!(
                            "more than {EVENT_FIELDS_MAX} fields"
                        )));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text() {
        let fields = Fields::read(r#" {"a": 1.10 , "b" : [ 2 ]}"#).unwrap();
        let texts: Vec<_> = fields.into_iter().map(|(n, v)| (n, v.get())).collect();
        assert_eq!(texts, [("a".into(), "1.10"), ("b".into(), "[ 2 ]")]);
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let read = |text: &str| Fields::read(text).unwrap_err().to_string();
        assert_eq!(
            read(&format!("{:?}", "x".repeat(9))),
            "must be a JSON object"
        );
        assert!(read(r#"{"a":1,"\u0061":2}"#).contains("\"a\" stands twice"));
        let many: Vec<String> = (0..65).map(|n| format!("\"{n}\":0")).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).contains("more than 64 fields"));
    }
}
