//! From events to signs of life: the newest of each subject of each watch.
//!
//! # Invariants
//! - What the watch says (`agent.stalled`, `agent.recovered`) is no sign of life, whoever writes it; nor are the log's own topics.
//! - An event counts for its own tenant's watches alone, and for those that were declared before it got its place.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::clock::Clock;
use crate::event::{Position, Seq, TopicPattern};
use crate::log::facts::Fact;

/// What the watch says. `sql/functions/judge_watched.sql` writes these.
pub const TOLD: [&str; 2] = ["agent.stalled", "agent.recovered"];

/// A watch, as far as events are compared with it.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Which topics count.
    pub topics: Vec<TopicPattern>,
    /// How long a subject may be silent.
    pub within: TimeDelta,
    /// It counts from here.
    pub since: Position,
}

/// All watches, by tenant.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    by_tenant: HashMap<String, Vec<Expected>>,
    tenants: Vec<String>,
}

impl Declared {
    /// Adds one.
    pub fn add(&mut self, tenant: &str, expected: Expected) {
        if !self.by_tenant.contains_key(tenant) {
            self.tenants.push(tenant.to_owned());
        }
        self.by_tenant
            .entry(tenant.to_owned())
            .or_default()
            .push(expected);
    }

    /// Where the first of them begins; none if there is none.
    #[must_use]
    pub fn begin(&self) -> Option<Position> {
        self.by_tenant
            .values()
            .flatten()
            .map(|watch| watch.since)
            .min()
    }

    /// Who has any.
    #[must_use]
    pub fn tenants(&self) -> &[String] {
        &self.tenants
    }
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Whose.
    pub tenant: String,
    /// For which watch.
    pub watch: String,
    /// Of whom.
    pub subject: String,
    /// The newest event.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Until when no other is needed, by the watch's own clock.
    pub due: DateTime<Utc>,
}

/// The signs of life among `facts`, which ascend.
#[must_use]
pub fn gather(declared: &Declared, facts: &[Fact], clock: &Clock) -> Vec<Sign> {
    let mut newest: HashMap<(&str, &str, &str), Sign> = HashMap::new();
    for fact in facts {
        let Some(of) = &fact.of else { continue };
        if TOLD.contains(&of.topic.as_str()) {
            continue;
        }
        let watches = declared.by_tenant.get(&of.tenant).into_iter().flatten();
        let counts = |watch: &&Expected| {
            fact.seq > watch.since.seq
                && watch.topics.iter().any(|topics| topics.matches(&of.topic))
        };
        for watch in watches.filter(counts) {
            let seen = clock.reading_at(fact.recorded_at);
            let due = seen.checked_add_signed(watch.within).unwrap_or(seen);
            let key = (of.tenant.as_str(), watch.name.as_str(), of.subject.as_str());
            let sign = newest.entry(key).or_insert_with(|| Sign {
                tenant: of.tenant.clone(),
                watch: watch.name.clone(),
                subject: of.subject.clone(),
                seq: fact.seq,
                recorded_at: fact.recorded_at,
                due,
            });
            (sign.seq, sign.recorded_at) = (fact.seq, fact.recorded_at);
            sign.due = sign.due.max(due);
        }
    }
    newest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::facts::Of;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_000_000_000_000 + ms).unwrap()
    }

    fn fact(seq: Seq, tenant: &str, topic: &str, subject: &str) -> Fact {
        Fact {
            seq,
            recorded_at: at(seq),
            of: Some(Of {
                tenant: tenant.to_owned(),
                topic: topic.to_owned(),
                subject: subject.to_owned(),
            }),
        }
    }

    fn expected(name: &str, topics: &str, since: Seq) -> Expected {
        Expected {
            name: name.to_owned(),
            topics: vec![TopicPattern::parse(topics).unwrap()],
            within: TimeDelta::seconds(1),
            since: Position::new(since, at(0)),
        }
    }

    #[test]
    fn the_newest_sign_of_each_subject_counts_for_its_tenants_watches_alone() {
        let mut declared = Declared::default();
        declared.add("acme", expected("beats", "agent.heartbeat.*", 2));
        declared.add("acme", expected("any", "*", 0));
        declared.add("beta", expected("any", "*", 0));
        let facts = [
            fact(1, "acme", "agent.heartbeat.ok", "a"),
            fact(3, "acme", "agent.heartbeat.ok", "a"),
            fact(4, "acme", "agent.heartbeat.ok", "a"),
            fact(5, "acme", "agent.stalled", "a"),
            fact(6, "acme", "agent.recovered", "b"),
            fact(7, "acme", "tidewire.audit.watch.set", "c"),
            fact(8, "gamma", "agent.heartbeat.ok", "a"),
            Fact {
                seq: 9,
                recorded_at: at(9),
                of: None,
            },
            fact(10, "acme", "deal.won", "a"),
        ];
        let clock = Clock {
            now: at(20),
            blind: TimeDelta::zero(),
            gap: None,
        };
        let mut signs: Vec<_> = gather(&declared, &facts, &clock)
            .into_iter()
            .map(|sign| (sign.tenant, sign.watch, sign.subject, sign.seq, sign.due))
            .collect();
        signs.sort();
        let sign = |watch: &str, seq| {
            (
                "acme".to_owned(),
                watch.to_owned(),
                "a".to_owned(),
                seq,
                at(1_000 + seq),
            )
        };
        assert_eq!(signs, [sign("any", 10), sign("beats", 4)]);
        assert_eq!(declared.begin().unwrap().seq, 0);
    }
}
