//! Who wrote and read what, as events of the tenant's own log: `tidewire.audit.events.appended`, `.subscribed`, `.read`.
//!
//! What administrators change is recorded by the database, in the transaction of the change; this is for what happens so often
//! that an event for each would double the log. So it is counted, by who, what and topic, and written once an interval. What is
//! appended in SQL the database counts (`sql/functions/record_append.sql`), and this has it written.
//!
//! # Invariants
//! - Recorded after the commit, or when a read has begun: what was refused is not in it.
//! - Bounded: beyond `RECORDS_MAX` holders and doings, or `TOPICS_MAX` topics of one, what is more is counted together.
//! - A crash loses an interval of it at most; the events themselves, which name their source, are not in question.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::app::App;
use crate::access::principal::Bearer;
use crate::access::{Credential, Principal};
use crate::event::limits::{DATA_BYTES_MAX, DATABASE_SILENCE_MAX};
use crate::event::new_event::Draft;
use crate::event::{Filter, Label, NewEvent, Tenant, Topic, TopicPattern};
use crate::log::AppendOptions;

/// Names and doings of a tenant that are told apart within an interval, some 10 MB with all their topics.
const RECORDS_MAX: usize = 1_000;
/// Topics or topic patterns that are told apart of one.
const TOPICS_MAX: usize = 50;
/// Under which the others are counted.
const OTHERS: &str = "others";
/// Records that are written together.
const BATCH: usize = 200;
/// Without an audit: how often what the database has counted is forgotten.
const FORGETTING: Duration = Duration::from_mins(1);
/// How long writing may take before a server stops.
const STOP: Duration = Duration::from_secs(3);

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Events were stored.
    Appended,
    /// A subscription or a stream was begun.
    Subscribed,
    /// A page was read.
    Read,
}

impl Doing {
    const fn topic(self) -> &'static str {
        match self {
            Self::Appended => "tidewire.audit.events.appended",
            Self::Subscribed => "tidewire.audit.events.subscribed",
            Self::Read => "tidewire.audit.events.read",
        }
    }
}

/// What one holder did of one kind.
#[derive(Debug)]
struct Record {
    role: &'static str,
    count: u64,
    topics: BTreeMap<Box<str>, u64>,
    first: SystemTime,
    last: SystemTime,
}

/// See the module.
#[derive(Debug)]
pub struct Audit {
    /// How often it is written; never without.
    interval: Option<Duration>,
    records: Mutex<Records>,
}

/// By tenant: what one does much of takes no place of another's.
type Records = HashMap<Tenant, HashMap<(Bearer, Doing), Record>>;

impl Audit {
    /// Nothing yet. Without an interval nothing is kept.
    #[must_use]
    pub fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            records: Mutex::default(),
        }
    }

    /// What was done in SQL waits no longer than this, unless something is the matter.
    pub fn late_after(&self) -> Duration {
        self.interval.unwrap_or(FORGETTING) * 2 + DATABASE_SILENCE_MAX
    }

    /// Events of these topics were stored.
    pub fn appended<'a>(&self, by: &Principal, topics: impl IntoIterator<Item = &'a Topic>) {
        self.note(by, Doing::Appended, topics.into_iter().map(Topic::as_str));
    }

    /// What matches this filter is read, or followed.
    pub fn read(&self, by: &Principal, doing: Doing, filter: &Filter) {
        self.note(by, doing, filter.topics().iter().map(TopicPattern::as_str));
    }

    fn note<'a>(&self, by: &Principal, doing: Doing, topics: impl Iterator<Item = &'a str>) {
        let mut topics = topics.peekable();
        if self.interval.is_none() || topics.peek().is_none() {
            return;
        }
        let now = SystemTime::now();
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let records = records.entry(by.tenant.clone()).or_default();
        let mut key = (named(by), doing);
        if records.len() >= RECORDS_MAX && !records.contains_key(&key) {
            key.0 = others(&by.tenant);
        }
        let record = records.entry(key).or_insert_with(|| Record {
            role: by.role.as_str(),
            count: 0,
            topics: BTreeMap::new(),
            first: now,
            last: now,
        });
        record.last = now;
        if doing != Doing::Appended {
            record.count = record.count.saturating_add(1);
        }
        for topic in topics {
            if doing == Doing::Appended {
                record.count = record.count.saturating_add(1);
            }
            if let Some(count) = record.topics.get_mut(topic) {
                *count = count.saturating_add(1);
                continue;
            }
            let is_told_apart = record.topics.len() < TOPICS_MAX;
            let topic = if is_told_apart { topic } else { OTHERS };
            let count = record.topics.entry(topic.into()).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn take(&self) -> Records {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *records)
    }

    /// What could not be written: goes with what was noted since, as far as there is room.
    fn put_back(&self, unwritten: Vec<((Bearer, Doing), Record)>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, old) in unwritten {
            let records = records.entry(key.0.tenant.clone()).or_default();
            if let Some(record) = records.get_mut(&key) {
                record.first = old.first;
                record.count = record.count.saturating_add(old.count);
                for (topic, count) in old.topics {
                    let sum = record.topics.entry(topic).or_default();
                    *sum = sum.saturating_add(count);
                }
            } else if records.len() < RECORDS_MAX {
                records.insert(key, old);
            }
        }
    }
}

/// Tokens that are issued anew for the same subject are one: else a thousand of them push out the others.
fn named(by: &Principal) -> Bearer {
    let mut bearer = by.bearer();
    if let Credential::Token { id, issued_at } = &mut bearer.credential {
        (*id, *issued_at) = (None, None);
    }
    bearer
}

/// Stands for all those of a tenant who are not told apart.
fn others(tenant: &Tenant) -> Bearer {
    Bearer {
        tenant: tenant.clone(),
        name: Label::parse(OTHERS).unwrap_or_else(|_| Label::developer()),
        credential: Credential::None,
    }
}

/// Writes it once an interval, for ever. Without one nothing is written.
pub async fn run(app: App) {
    let interval = app.audit.interval;
    loop {
        crate::tasks::pause(interval.unwrap_or(FORGETTING)).await;
        write(&app).await;
        if let Err(error) = app.history.record_sql_appends(interval.is_some()).await {
            tracing::warn!(
                %error,
                "who appended in SQL could not be written: it is tried again"
            );
        }
    }
}

/// Writes what there is before a server stops.
pub async fn finish(app: &App) {
    if tokio::time::timeout(STOP, write(app)).await.is_err() {
        tracing::warn!("the last audit events were not written in time");
    }
}

async fn write(app: &App) {
    for (tenant, records) in app.audit.take() {
        let mut records: Vec<_> = records.into_iter().collect();
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(BATCH));
            let events: Vec<NewEvent> = records
                .iter()
                .filter_map(|(key, record)| event(key, record))
                .collect();
            if let Err(errors) = app
                .appender
                .append(&tenant, events, AppendOptions::default())
                .await
            {
                let error = errors.first().map(ToString::to_string);
                tracing::warn!(
                    error,
                    "audit events could not be written: they are tried again"
                );
                records.extend(rest);
                app.audit.put_back(records);
                break;
            }
            records = rest;
        }
    }
}

fn event((bearer, doing): &(Bearer, Doing), record: &Record) -> Option<NewEvent> {
    let time =
        |at: SystemTime| DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Millis, true);
    let credential = match &bearer.credential {
        Credential::None => Value::Null,
        Credential::ApiKey { id, .. } => json!({ "api_key": id.as_str() }),
        Credential::Token { .. } => json!({ "sub": bearer.name.as_str() }),
    };
    let data = json!({
        "by": bearer.name.as_str(),
        "role": record.role,
        "credential": credential,
        "count": record.count,
        "topics": record.topics,
        "first_at": time(record.first),
        "last_at": time(record.last),
    });
    draft(doing.topic(), &bearer.name, &data)
}

pub(super) fn draft(topic: &str, by: &Label, data: &Value) -> Option<NewEvent> {
    let mut draft = Draft::default();
    draft.set_topic(topic).ok()?;
    draft
        .set_data(&to_raw_value(data).ok()?, DATA_BYTES_MAX)
        .ok()?;
    draft.subject = Some(by.clone());
    draft.source = Some(by.clone());
    draft.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Principal;

    fn of(name: &str) -> Principal {
        Principal {
            name: Label::parse(name).unwrap(),
            ..Principal::development()
        }
    }

    #[test]
    fn what_is_more_is_counted_together() {
        let audit = Audit::new(Some(Duration::from_mins(1)));
        for n in 0..(TOPICS_MAX + 50) {
            audit.appended(&of("a"), [&Topic::parse(&format!("t{n}")).unwrap()]);
        }
        for n in 0..(RECORDS_MAX + 500) {
            audit.read(
                &of(&format!("reader-{n}")),
                Doing::Read,
                &Filter::everything(),
            );
        }
        let other = Principal {
            tenant: Tenant::parse("other").unwrap(),
            ..of("alone")
        };
        audit.read(&other, Doing::Read, &Filter::everything());
        let mut all = audit.take();
        let (alone, _) = all
            .remove(&other.tenant)
            .unwrap()
            .into_iter()
            .next()
            .unwrap();
        assert_eq!(
            alone.0.name.as_str(),
            "alone",
            "another tenant's takes no place of its"
        );
        let records = all.remove(&Tenant::dev()).unwrap();
        assert!(records.len() <= RECORDS_MAX + 1, "{}", records.len());
        let appended = records
            .iter()
            .find(|((_, doing), _)| *doing == Doing::Appended)
            .unwrap()
            .1;
        assert_eq!(appended.count, 100);
        assert_eq!(appended.topics.len(), TOPICS_MAX + 1);
        assert_eq!(appended.topics[OTHERS], 50);
        let read: u64 = records
            .iter()
            .filter(|((_, doing), _)| *doing == Doing::Read)
            .map(|(_, one)| one.count)
            .sum();
        assert_eq!(read, u64::try_from(RECORDS_MAX + 500).unwrap());
    }

    #[test]
    fn what_was_not_written_is_written_with_what_follows() {
        let audit = Audit::new(Some(Duration::from_mins(1)));
        let topic = Topic::parse("a").unwrap();
        audit.appended(&of("a"), [&topic, &topic]);
        let unwritten: Vec<_> = audit.take().into_values().flatten().collect();
        audit.appended(&of("a"), [&topic]);
        audit.put_back(unwritten);
        let records = audit.take();
        assert_eq!(
            records
                .values()
                .flat_map(HashMap::values)
                .map(|one| (one.count, one.topics["a"]))
                .collect::<Vec<_>>(),
            [(3, 3)]
        );
    }

    #[test]
    fn tokens_of_one_subject_are_one() {
        let audit = Audit::new(Some(Duration::from_mins(1)));
        for n in 0..10 {
            let mut by = of("a");
            by.credential = Credential::Token {
                id: Some(format!("jti-{n}").into()),
                issued_at: Some(n),
            };
            audit.read(&by, Doing::Read, &Filter::everything());
        }
        assert_eq!(audit.take().values().map(HashMap::len).sum::<usize>(), 1);
    }

    #[test]
    fn without_an_interval_nothing_is_kept() {
        let audit = Audit::new(None);
        audit.appended(&of("a"), [&Topic::parse("a").unwrap()]);
        assert!(audit.take().is_empty());
    }
}
