//! The index from topics and subjects to those who want them.
//!
//! # Invariants
//! - The cost of a match grows with those who match and with the depth of the topic, not with those who are connected.
//! - Tenants have trees of their own: nothing of one is looked at for an event of another.

use std::collections::HashMap;

use crate::event::{Filter, Label, Tenant};

/// Whoever wants events: a number that the hub gives.
pub type Reader = u64;

/// See the module.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tenants: HashMap<Tenant, Node>,
    readers: usize,
}

/// One segment of the patterns.
#[derive(Debug, Default)]
struct Node {
    exact: HashMap<Box<str>, Node>,
    /// `*` that stands for exactly one segment.
    one: Option<Box<Node>>,
    /// Patterns that end here.
    here: Leaf,
    /// Patterns that end here with a closing `*`: one or more segments follow.
    rest: Leaf,
}

/// Readers whose patterns end at a node.
#[derive(Debug, Default)]
struct Leaf {
    any_subject: Vec<Reader>,
    by_subject: HashMap<Label, Vec<Reader>>,
}

impl Leaf {
    fn is_empty(&self) -> bool {
        self.any_subject.is_empty() && self.by_subject.is_empty()
    }

    fn add(&mut self, reader: Reader, filter: &Filter) {
        if filter.subjects().is_empty() {
            self.any_subject.push(reader);
        }
        for subject in filter.subjects() {
            self.by_subject
                .entry(subject.clone())
                .or_default()
                .push(reader);
        }
    }

    fn remove(&mut self, reader: Reader, filter: &Filter) {
        if filter.subjects().is_empty() {
            self.any_subject.retain(|one| *one != reader);
        }
        for subject in filter.subjects() {
            if let Some(readers) = self.by_subject.get_mut(subject) {
                readers.retain(|one| *one != reader);
                if readers.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }

    fn each(&self, subject: Option<&str>, found: &mut impl FnMut(Reader)) {
        self.any_subject.iter().copied().for_each(&mut *found);
        if let Some(readers) = subject.and_then(|subject| self.by_subject.get(subject)) {
            readers.iter().copied().for_each(&mut *found);
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// Changes the leaf of a pattern, and drops nodes that are left empty.
    fn change(
        &mut self,
        mut segments: std::iter::Peekable<std::str::Split<'_, char>>,
        change: &mut impl FnMut(&mut Leaf),
    ) {
        let Some(segment) = segments.next() else {
            change(&mut self.here);
            return;
        };
        let is_last = segments.peek().is_none();
        match segment {
            "*" if is_last => change(&mut self.rest),
            "*" => {
                let next = self.one.get_or_insert_default();
                next.change(segments, change);
                if next.is_empty() {
                    self.one = None;
                }
            }
            exact => {
                let next = self.exact.entry(exact.into()).or_default();
                next.change(segments, change);
                if next.is_empty() {
                    self.exact.remove(exact);
                }
            }
        }
    }

    fn each(
        &self,
        mut segments: std::str::Split<'_, char>,
        subject: Option<&str>,
        found: &mut impl FnMut(Reader),
    ) {
        let Some(segment) = segments.next() else {
            self.here.each(subject, found);
            return;
        };
        self.rest.each(subject, found);
        if let Some(next) = &self.one {
            next.each(segments.clone(), subject, found);
        }
        if let Some(next) = self.exact.get(segment) {
            next.each(segments, subject, found);
        }
    }
}

impl MatchIndex {
    /// Adds a reader under each of its patterns.
    pub fn add(&mut self, reader: Reader, tenant: &Tenant, filter: &Filter) {
        let root = self.tenants.entry(tenant.clone()).or_default();
        for pattern in filter.topics() {
            root.change(pattern.as_str().split('.').peekable(), &mut |leaf| {
                leaf.add(reader, filter);
            });
        }
        self.readers = self.readers.saturating_add(1);
    }

    /// Removes what `add` added.
    pub fn remove(&mut self, reader: Reader, tenant: &Tenant, filter: &Filter) {
        if let Some(root) = self.tenants.get_mut(tenant) {
            for pattern in filter.topics() {
                root.change(pattern.as_str().split('.').peekable(), &mut |leaf| {
                    leaf.remove(reader, filter);
                });
            }
            if root.is_empty() {
                self.tenants.remove(tenant);
            }
        }
        self.readers = self.readers.saturating_sub(1);
    }

    /// Calls `found` for everyone who wants the event; twice for one whose patterns match it twice.
    pub fn each(
        &self,
        tenant: &Tenant,
        topic: &str,
        subject: Option<&str>,
        found: &mut impl FnMut(Reader),
    ) {
        if let Some(root) = self.tenants.get(tenant) {
            root.each(topic.split('.'), subject, found);
        }
    }

    /// How many readers there are.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.readers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TopicPattern;
    use proptest::prelude::*;

    fn filter(topics: &[String], subjects: &[String]) -> Filter {
        Filter::new(
            topics.iter().map(|t| TopicPattern::parse(t).unwrap()),
            subjects.iter().map(|s| Label::parse(s).unwrap()),
        )
        .unwrap()
    }

    proptest! {
        /// The index finds exactly those whose filter matches, and nothing is left when all have gone.
        #[test]
        fn the_index_agrees_with_the_filters(
            filters in proptest::collection::vec((
                proptest::collection::vec(
                    proptest::collection::vec("[ab]|\\*", 1..4).prop_map(|s| s.join(".")), 1..4),
                proptest::collection::vec("[xy]", 0..3)), 1..12),
            topic in proptest::collection::vec("[ab]", 1..5).prop_map(|s| s.join(".")),
            subject in proptest::option::of("[xy]"),
        ) {
            let tenant = Tenant::parse("t").unwrap();
            let other = Tenant::parse("other").unwrap();
            let filters: Vec<Filter> = filters.iter().map(|(t, s)| filter(t, s)).collect();
            let mut index = MatchIndex::default();
            for (reader, filter) in (0..).zip(&filters) {
                index.add(reader, &tenant, filter);
            }
            let mut found = std::collections::BTreeSet::new();
            index.each(&tenant, &topic, subject.as_deref(), &mut |r| { found.insert(r); });
            let wanted: std::collections::BTreeSet<u64> = (0..).zip(&filters)
                .filter(|(_, f)| f.matches(&topic, subject.as_deref())).map(|(r, _)| r).collect();
            prop_assert_eq!(found, wanted);
            let mut leaked = 0;
            index.each(&other, &topic, subject.as_deref(), &mut |_| leaked += 1);
            prop_assert_eq!(leaked, 0);
            for (reader, filter) in (0..).zip(&filters) {
                index.remove(reader, &tenant, filter);
            }
            prop_assert!(index.tenants.is_empty());
        }
    }

    #[test]
    fn of_a_thousand_readers_of_which_ten_match_ten_are_looked_at() {
        let tenant = Tenant::parse("t").unwrap();
        let mut index = MatchIndex::default();
        for reader in 0..1_000 {
            let topic = if reader < 10 {
                "deal.stage.*".to_owned()
            } else {
                format!("agent.a{reader}.*")
            };
            index.add(reader, &tenant, &filter(&[topic], &[]));
        }
        let mut looked_at = 0;
        index.each(&tenant, "deal.stage.updated", None, &mut |_| looked_at += 1);
        assert_eq!(looked_at, 10);
    }
}
