//! Topics, which writers choose, and topic patterns, by which readers choose.
//!
//! # Invariants
//! - A topic is 1 to 8 dotted segments of `[a-z0-9_-]`, 255 bytes at most.
//! - In a pattern `*` stands for exactly one segment, and a closing `*` for one or more.
//! - Topics under `tidewire` are the log's own. A pattern that begins with `*` does not stand for them, so that nobody gets
//!   them who has not named them.

use std::fmt;
use std::sync::Arc;

use super::limits::{NAME_BYTES_MAX, TOPIC_SEGMENTS_MAX};

/// Why a topic or a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A segment is empty: `a..b`, `.a`, or nothing at all.
    #[error("a topic is dotted segments of a-z, 0-9, _ and -, none of them empty")]
    EmptySegment,
    /// A character outside the alphabet.
    #[error("a topic may hold only a-z, 0-9, _, - and dots; {0:?} is not one of them")]
    Alphabet(char),
    /// `*` beside other characters in a segment.
    #[error("* stands for a whole segment")]
    PartialWildcard,
    /// More than eight segments.
    #[error("a topic has at most {TOPIC_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// More than 255 bytes.
    #[error("a topic is at most {NAME_BYTES_MAX} bytes")]
    TooLong,
}

/// How the log's own topics begin.
pub const RESERVED: &str = "tidewire.";

/// Whether a topic or a pattern is one of the log's own.
#[must_use]
pub fn is_reserved(text: &str) -> bool {
    text.starts_with(RESERVED)
}

/// How the topics of the server's own state begin, which are never stored.
pub const SYSTEM: &str = "system.";

/// Whether nobody who writes may write it: the log's own, and what a socket hears of the server itself.
fn is_kept(text: &str) -> bool {
    is_reserved(text) || text.starts_with(SYSTEM) || matches!(text, "tidewire" | "system")
}

fn check(text: &str, wildcards: bool) -> Result<(), TopicError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    let mut count = 0_usize;
    for segment in text.split('.') {
        count = count.saturating_add(1);
        if segment.is_empty() {
            return Err(TopicError::EmptySegment);
        }
        if wildcards && segment == "*" {
            continue;
        }
        for c in segment.chars() {
            match c {
                'a'..='z' | '0'..='9' | '_' | '-' => {}
                '*' if wildcards => return Err(TopicError::PartialWildcard),
                other => return Err(TopicError::Alphabet(other)),
            }
        }
    }
    if count > TOPIC_SEGMENTS_MAX {
        Err(TopicError::TooManySegments)
    } else {
        Ok(())
    }
}

/// What an event is: `agent.state.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks `text`.
    ///
    /// # Errors
    /// If it is not a topic.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, false)?;
        Ok(Self(text.into()))
    }

    /// The topic of an event whose stored topic breaks the rules; no reader can ask for it by name.
    #[must_use]
    pub fn unreadable() -> Self {
        Self("~".into())
    }

    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no client may write it: the log's own, and `system.*`, by which sockets hear of the server itself.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        is_kept(&self.0)
    }

    /// Whether it is one of the log's own, which it alone writes.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0) || &*self.0 == "tidewire"
    }
}

/// A topic with wildcards: `deal.stage.*`, `*.task.failed`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPattern(Arc<str>);

impl TopicPattern {
    /// Checks `text`.
    ///
    /// # Errors
    /// If it is not a topic pattern.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, true)?;
        Ok(Self(text.into()))
    }

    /// The pattern that every topic matches.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// The pattern that every topic of the log's own matches.
    #[must_use]
    pub fn reserved() -> Self {
        Self(format!("{RESERVED}*").into())
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names topics that no client may write.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        is_kept(&self.0)
    }

    /// The topic, if the pattern has no wildcard.
    #[must_use]
    pub fn as_exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Whether it stands for topics of the log's own, for these alone.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }

    /// Whether `topic` is one this pattern stands for.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if is_reserved(topic) && !self.is_reserved() {
            return false;
        }
        let mut pattern = self.0.split('.').peekable();
        let mut topic = topic.split('.');
        loop {
            match (pattern.next(), topic.next()) {
                (None, None) => return true,
                (Some("*"), Some(_)) if pattern.peek().is_none() => return true,
                (Some(p), Some(t)) if p == "*" || p == t => {}
                _ => return false,
            }
        }
    }

    /// Whether every topic that `other` stands for is one this pattern stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if other.is_reserved() && !self.is_reserved() {
            return false;
        }
        let mut mine = self.0.split('.').peekable();
        let mut theirs = other.0.split('.').peekable();
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some("*"), Some(_)) if mine.peek().is_none() => return true,
                // A closing * of theirs stands for several segments: only a closing * of mine covers that.
                (Some(_), Some("*")) if theirs.peek().is_none() => return false,
                (Some(m), Some(t)) if m == "*" || m == t => {}
                _ => return false,
            }
        }
    }

    /// The pattern as a PostgreSQL regular expression, which does not keep the log's own topics out by itself. The alphabet holds no metacharacter but the dot.
    #[must_use]
    pub fn to_regex(&self) -> String {
        let count = self.0.split('.').count();
        let segments: Vec<&str> = self
            .0
            .split('.')
            .enumerate()
            .map(|(at, segment)| match segment {
                "*" if at.saturating_add(1) == count => ".+",
                "*" => "[^.]+",
                exact => exact,
            })
            .collect();
        format!("^{}$", segments.join("\\."))
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::parse(text).unwrap()
    }

    #[test]
    fn topics_have_rules() {
        assert!(Topic::parse("agent.state.updated").is_ok());
        assert!(Topic::parse("a.b.c.d.e.f.g.h").is_ok());
        assert_eq!(
            Topic::parse("a.b.c.d.e.f.g.h.i"),
            Err(TopicError::TooManySegments)
        );
        assert_eq!(Topic::parse(""), Err(TopicError::EmptySegment));
        assert_eq!(Topic::parse("a..b"), Err(TopicError::EmptySegment));
        assert_eq!(Topic::parse("A.b"), Err(TopicError::Alphabet('A')));
        assert_eq!(Topic::parse("a.*"), Err(TopicError::Alphabet('*')));
        assert_eq!(Topic::parse(&"a".repeat(256)), Err(TopicError::TooLong));
        assert_eq!(
            TopicPattern::parse("a.b*"),
            Err(TopicError::PartialWildcard)
        );
    }

    #[test]
    fn a_closing_star_stands_for_one_or_more() {
        assert!(pattern("*").matches("a"));
        assert!(pattern("*").matches("a.b.c"));
        assert!(pattern("a.*").matches("a.b"));
        assert!(pattern("a.*").matches("a.b.c"));
        assert!(!pattern("a.*").matches("a"));
        assert!(pattern("*.task.failed").matches("x.task.failed"));
        assert!(!pattern("*.task.failed").matches("x.y.task.failed"));
        assert!(pattern("a.*.c").matches("a.b.c"));
        assert!(!pattern("a.*.c").matches("a.b.b.c"));
    }

    #[test]
    fn covering_is_about_every_topic() {
        assert!(pattern("*").covers(&pattern("a.*")));
        assert!(pattern("a.*").covers(&pattern("a.b")));
        assert!(pattern("a.*").covers(&pattern("a.*.c")));
        assert!(!pattern("a.*.c").covers(&pattern("a.*")));
        assert!(!pattern("a.b").covers(&pattern("a.*")));
        assert!(!pattern("a.*").covers(&pattern("*")));
    }

    #[test]
    fn the_logs_own_topics_are_for_those_who_name_them() {
        for (text, topic, is_match) in [
            ("*", "tidewire.audit.read", false),
            ("*.audit.*", "tidewire.audit.read", false),
            ("*", "tidewire", true),
            ("tidewire.*", "tidewire.audit.read", true),
            ("tidewire.audit.*", "tidewire.audit.read", true),
            ("*", "tidewires.audit", true),
            ("*.audit", "tidewire-2.audit", true),
        ] {
            assert_eq!(pattern(text).matches(topic), is_match, "{text} {topic}");
        }
        assert!(!pattern("*").covers(&pattern("tidewire.*")));
        assert!(!pattern("*.audit.*").covers(&pattern("tidewire.audit.*")));
        assert!(pattern("tidewire.*").covers(&pattern("tidewire.audit.*")));
        assert!(!pattern("tidewire.*").covers(&pattern("*.audit")));
    }

    fn topics() -> impl Strategy<Value = String> {
        proptest::collection::vec("[a-c]{1,2}|tidewire", 1..5).prop_map(|s| s.join("."))
    }

    fn patterns() -> impl Strategy<Value = String> {
        proptest::collection::vec("[a-c]{1,2}|\\*|tidewire", 1..5).prop_map(|s| s.join("."))
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,300}") {
            if let Ok(topic) = Topic::parse(&text) {
                prop_assert_eq!(topic.as_str(), text.as_str());
                prop_assert!(pattern(&text).matches(&text));
            }
        }

        #[test]
        fn what_covers_matches_all_that_the_other_matches(a in patterns(), b in patterns(), t in topics()) {
            let (a, b) = (pattern(&a), pattern(&b));
            if a.covers(&b) && b.matches(&t) {
                prop_assert!(a.matches(&t));
            }
        }
    }
}
