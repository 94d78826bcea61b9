//! Short texts of an event: its id, its tenant, and the labels subject, source and content type.
//!
//! # Invariants
//! - Never empty, never longer than its bound, no control characters.
//! - A tenant's name is safe in a key, a lock name and a log line.

use std::fmt;
use std::sync::Arc;

use super::limits::{NAME_BYTES_MAX, SHORT_NAME_BYTES_MAX};

/// Why a short text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than its bound.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// The text holds a control character.
    #[error("must not contain control characters")]
    Control,
    /// A tenant's name holds something other than letters, digits, dot, underscore, hyphen.
    #[error("may hold only letters, digits, dot, underscore and hyphen")]
    Alphabet,
}

fn check(text: &str, bytes_max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.len() > bytes_max {
        Err(NameError::TooLong(bytes_max))
    } else if text.chars().any(char::is_control) {
        Err(NameError::Control)
    } else {
        Ok(())
    }
}

/// An event's id: unique within its tenant for the deduplication window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Checks `text`.
    ///
    /// # Errors
    /// If it is empty, longer than 255 bytes or holds a control character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A subject, a source, a region or a content type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// Checks `text`.
    ///
    /// # Errors
    /// If it is empty, longer than 255 bytes or holds a control character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// Checks `text` against the shorter bound of regions.
    ///
    /// # Errors
    /// If it is empty, longer than 64 bytes or holds a control character.
    pub fn parse_short(text: &str) -> Result<Self, NameError> {
        check(text, SHORT_NAME_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Label {
    /// The name under which a server checks itself.
    #[must_use]
    pub fn checker() -> Self {
        Self("tidewire-check".into())
    }

    /// The name of whoever calls without a token in development mode.
    #[must_use]
    pub fn developer() -> Self {
        Self("developer".into())
    }
}

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The company that owns an event. Comes from the credential, never from a request's body or URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// Tenants in which servers check themselves: the one, and the one that must not see it.
const RESERVED: [&str; 2] = ["tidewire-check", "tidewire-check-other"];

impl Tenant {
    /// Those in which servers check themselves. Nobody else is let in as one of theirs.
    pub fn reserved() -> impl Iterator<Item = Self> {
        RESERVED.into_iter().map(|name| Self(name.into()))
    }

    /// Whether it is one of [`Tenant::reserved`].
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&&*self.0)
    }

    /// Checks `text`.
    ///
    /// # Errors
    /// If it is empty, longer than 64 bytes, or holds anything but letters, digits, `.`, `_` and `-`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text, SHORT_NAME_BYTES_MAX)?;
        if text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Alphabet)
        }
    }

    /// The tenant of development mode.
    #[must_use]
    pub fn dev() -> Self {
        Self("dev".into())
    }

    /// A tenant that no credential can name.
    #[must_use]
    pub fn nobody() -> Self {
        Self("/".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<uuid::Uuid> for EventId {
    fn from(id: uuid::Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds() {
        assert_eq!(EventId::parse(""), Err(NameError::Empty));
        assert_eq!(
            EventId::parse(&"a".repeat(256)),
            Err(NameError::TooLong(255))
        );
        assert_eq!(EventId::parse("a\u{0}b"), Err(NameError::Control));
        assert_eq!(EventId::parse("a\u{85}b"), Err(NameError::Control));
        assert!(EventId::parse("ключ:1/2 3").is_ok());
        assert_eq!(Tenant::parse("a/b"), Err(NameError::Alphabet));
        assert!(Tenant::parse("acme-1.eu_2").is_ok());
    }
}
