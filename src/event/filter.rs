//! What a reader wants to see: topic patterns and subjects.

use std::collections::BTreeSet;

use super::limits::{FILTER_SUBJECTS_MAX, FILTER_TOPICS_MAX};
use super::{Label, TopicPattern};

/// Topic patterns and subjects; an event must match one of each. No subjects: any, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    topics: Vec<TopicPattern>,
    subjects: BTreeSet<Label>,
}

/// Why a filter was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many patterns.
    #[error("at most {FILTER_TOPICS_MAX} topic patterns")]
    TooManyTopics,
    /// Too many subjects.
    #[error("at most {FILTER_SUBJECTS_MAX} subjects")]
    TooManySubjects,
}

impl Filter {
    /// Builds a filter; no topics means every topic. Patterns that another one covers are left out.
    ///
    /// # Errors
    /// If there are more patterns or subjects than a reader may have.
    pub fn new(
        topics: impl IntoIterator<Item = TopicPattern>,
        subjects: impl IntoIterator<Item = Label>,
    ) -> Result<Self, FilterError> {
        let mut wanted: Vec<TopicPattern> = topics.into_iter().collect();
        if wanted.len() > FILTER_TOPICS_MAX {
            return Err(FilterError::TooManyTopics);
        }
        if wanted.is_empty() {
            wanted.push(TopicPattern::any());
        }
        wanted.sort();
        wanted.dedup();
        let topics = wanted
            .iter()
            .filter(|one| {
                !wanted
                    .iter()
                    .any(|other| other != *one && other.covers(one))
            })
            .cloned()
            .collect();
        let subjects: BTreeSet<Label> = subjects.into_iter().collect();
        if subjects.len() > FILTER_SUBJECTS_MAX {
            return Err(FilterError::TooManySubjects);
        }
        Ok(Self { topics, subjects })
    }

    /// The filter that everything matches.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            topics: vec![TopicPattern::any()],
            subjects: BTreeSet::new(),
        }
    }

    /// All that is about a subject, the log's own topics included.
    #[must_use]
    pub fn all_of(subject: Label) -> Self {
        Self {
            topics: vec![TopicPattern::any(), TopicPattern::reserved()],
            subjects: BTreeSet::from([subject]),
        }
    }

    /// The patterns, sorted, none covered by another.
    #[must_use]
    pub fn topics(&self) -> &[TopicPattern] {
        &self.topics
    }

    /// The subjects; empty means any.
    #[must_use]
    pub const fn subjects(&self) -> &BTreeSet<Label> {
        &self.subjects
    }

    /// Whether an event of this topic and subject is wanted.
    #[must_use]
    pub fn matches(&self, topic: &str, subject: Option<&str>) -> bool {
        (self.subjects.is_empty() || subject.is_some_and(|s| self.subjects.contains(s)))
            && self.matches_topic(topic)
    }

    /// Whether an event of this topic is wanted, if its subject is.
    #[must_use]
    pub fn matches_topic(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_patterns_are_left_out() {
        let topics = ["a.b", "a.*", "c"].map(|t| TopicPattern::parse(t).unwrap());
        let filter = Filter::new(topics, []).unwrap();
        let kept: Vec<_> = filter.topics().iter().map(TopicPattern::as_str).collect();
        assert_eq!(kept, ["a.*", "c"]);
    }

    #[test]
    fn subjects_narrow() {
        let filter = Filter::new([], [Label::parse("x").unwrap()]).unwrap();
        assert!(filter.matches("a", Some("x")));
        assert!(!filter.matches("a", Some("y")));
        assert!(!filter.matches("a", None));
    }
}
