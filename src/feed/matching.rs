//! The index from topics and subjects to those who want them.
//!
//! # Invariants
//! - The cost of a match grows with those who match or name the event's subject and with the depth of the topic, not with
//!   those who are connected.
//! - A reader costs its topics or its subjects, never their product: who names subjects stands under each of them, and its
//!   topics are looked at when one is met.
//! - Tenants have trees of their own: nothing of one is looked at for an event of another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::topic::is_reserved;
use crate::event::{Filter, Label, Tenant};

/// Whoever wants events: a number that the hub gives.
pub type Reader = u64;

/// See the module.
#[derive(Debug, Default)]
pub struct MatchIndex {
    tenants: HashMap<Tenant, TenantIndex>,
    readers: usize,
}

/// The readers of one tenant.
#[derive(Debug, Default)]
struct TenantIndex {
    /// Those who take any subject.
    by_topic: Node,
    /// Those who name subjects, under each.
    by_subject: HashMap<Label, Vec<(Reader, Arc<Filter>)>>,
}

/// One segment of the patterns.
#[derive(Debug, Default)]
struct Node {
    exact: HashMap<Box<str>, Node>,
    /// `*` that stands for exactly one segment.
    one: Option<Box<Node>>,
    /// Patterns that end here.
    here: Vec<Reader>,
    /// Patterns that end here with a closing `*`: one or more segments follow.
    rest: Vec<Reader>,
}

impl TenantIndex {
    fn is_empty(&self) -> bool {
        self.by_topic.is_empty() && self.by_subject.is_empty()
    }

    fn add(&mut self, reader: Reader, filter: &Arc<Filter>) {
        if filter.subjects().is_empty() {
            self.by_topic
                .change_each(filter, &mut |leaf| leaf.push(reader));
        }
        for subject in filter.subjects() {
            let readers = self.by_subject.entry(subject.clone());
            // Most subjects are named by one reader.
            let readers = readers.or_insert_with(|| Vec::with_capacity(1));
            readers.push((reader, Arc::clone(filter)));
        }
    }

    fn remove(&mut self, reader: Reader, filter: &Filter) {
        if filter.subjects().is_empty() {
            self.by_topic.change_each(filter, &mut |leaf| {
                leaf.retain(|one| *one != reader);
            });
        }
        for subject in filter.subjects() {
            if let Some(readers) = self.by_subject.get_mut(subject) {
                readers.retain(|(one, _)| *one != reader);
                if readers.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }

    fn each(&self, topic: &str, subject: Option<&str>, found: &mut impl FnMut(Reader)) {
        let mut segments = topic.split('.');
        if is_reserved(topic) {
            // Only patterns that name the log's own topics stand for them.
            let own = segments.next().and_then(|own| self.by_topic.exact.get(own));
            if let Some(own) = own {
                own.each(segments, found);
            }
        } else {
            self.by_topic.each(segments, found);
        }
        let named = subject.and_then(|subject| self.by_subject.get(subject));
        for (reader, filter) in named.into_iter().flatten() {
            if filter.matches_topic(topic) {
                found(*reader);
            }
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// Changes the leaf of each of a filter's patterns.
    fn change_each(&mut self, filter: &Filter, change: &mut impl FnMut(&mut Vec<Reader>)) {
        for pattern in filter.topics() {
            self.change(pattern.as_str().split('.').peekable(), change);
        }
    }

    /// Changes the leaf of a pattern, and drops nodes that are left empty.
    fn change(
        &mut self,
        mut segments: std::iter::Peekable<std::str::Split<'_, char>>,
        change: &mut impl FnMut(&mut Vec<Reader>),
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

    fn each(&self, mut segments: std::str::Split<'_, char>, found: &mut impl FnMut(Reader)) {
        let Some(segment) = segments.next() else {
            self.here.iter().copied().for_each(found);
            return;
        };
        self.rest.iter().copied().for_each(&mut *found);
        if let Some(next) = &self.one {
            next.each(segments.clone(), found);
        }
        if let Some(next) = self.exact.get(segment) {
            next.each(segments, found);
        }
    }
}

impl MatchIndex {
    /// Adds a reader under each of its subjects or, if it takes any, under each of its patterns.
    pub fn add(&mut self, reader: Reader, tenant: &Tenant, filter: &Arc<Filter>) {
        let readers = self.tenants.entry(tenant.clone()).or_default();
        readers.add(reader, filter);
        self.readers = self.readers.saturating_add(1);
    }

    /// Removes what `add` added.
    pub fn remove(&mut self, reader: Reader, tenant: &Tenant, filter: &Filter) {
        if let Some(readers) = self.tenants.get_mut(tenant) {
            readers.remove(reader, filter);
            if readers.is_empty() {
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
        if let Some(readers) = self.tenants.get(tenant) {
            readers.each(topic, subject, found);
        }
    }

    /// How many readers there are.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.readers
    }

    /// Whether anybody reads what is this tenant's.
    #[must_use]
    pub fn is_read(&self, tenant: &Tenant) -> bool {
        self.tenants.contains_key(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TopicPattern;
    use proptest::prelude::*;

    fn filter(topics: &[String], subjects: &[String]) -> Arc<Filter> {
        let filter = Filter::new(
            topics.iter().map(|t| TopicPattern::parse(t).unwrap()),
            subjects.iter().map(|s| Label::parse(s).unwrap()),
        );
        Arc::new(filter.unwrap())
    }

    /// Places in which a reader stands.
    fn places(node: &Node) -> usize {
        let own = node.here.len() + node.rest.len();
        let one = node.one.as_deref().map_or(0, places);
        own + one + node.exact.values().map(places).sum::<usize>()
    }

    proptest! {
        /// The index finds exactly those whose filter matches, and nothing is left when all have gone.
        #[test]
        fn the_index_agrees_with_the_filters(
            filters in proptest::collection::vec((
                proptest::collection::vec(
                    proptest::collection::vec("[ab]|\\*|tidewire", 1..4).prop_map(|s| s.join(".")), 1..4),
                proptest::collection::vec("[xy]", 0..3)), 1..12),
            topic in proptest::collection::vec("[ab]|tidewire", 1..5).prop_map(|s| s.join(".")),
            subject in proptest::option::of("[xy]"),
        ) {
            let tenant = Tenant::parse("t").unwrap();
            let other = Tenant::parse("other").unwrap();
            let filters: Vec<Arc<Filter>> = filters.iter().map(|(t, s)| filter(t, s)).collect();
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

    #[test]
    fn a_reader_costs_its_topics_or_its_subjects_and_not_their_product() {
        let tenant = Tenant::parse("t").unwrap();
        let topics: Vec<String> = (0..100).map(|n| format!("t{n}.*")).collect();
        let subjects: Vec<String> = (0..1_000).map(|n| format!("s{n}")).collect();
        let mut index = MatchIndex::default();
        index.add(0, &tenant, &filter(&topics, &subjects));
        index.add(1, &tenant, &filter(&topics, &[]));
        let held = &index.tenants[&tenant];
        let named: usize = held.by_subject.values().map(Vec::len).sum();
        assert_eq!((places(&held.by_topic), named), (100, 1_000));
    }
}
