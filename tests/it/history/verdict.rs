//! What the table says of what was written and what was read.

use std::collections::{HashMap, HashSet};
use std::fmt;

use tokio_postgres::Client;

use super::readers::Record;
use super::writers::Ledger;

/// How a history ended.
pub struct Verdict {
    /// Events in the table, end markers aside.
    pub committed: usize,
    /// What the writers know.
    pub ledger: Ledger,
    readers: Vec<Account>,
    /// Acknowledged, and not there.
    lost: Vec<String>,
    /// Stored more than once.
    doubled: Vec<String>,
    /// Rolled back, and there.
    ghosts: Vec<String>,
}

/// What became of one reader.
struct Account {
    name: String,
    resumes: usize,
    got: usize,
    missed: usize,
    twice: usize,
    strangers: usize,
    disorder: usize,
    complaints: Vec<String>,
}

impl Verdict {
    /// Compares what was read and acknowledged with the table.
    pub async fn of(client: &Client, records: Vec<Record>, ledger: Ledger) -> Self {
        let mut stored: HashMap<String, usize> = HashMap::new();
        let all = "SELECT id FROM tidewire.events ORDER BY seq";
        for row in client.query(all, &[]).await.unwrap() {
            *stored.entry(row.get(0)).or_default() += 1;
        }
        let mut readers = Vec::new();
        for record in records {
            let query = format!(
                "SELECT id FROM tidewire.events WHERE tenant = 'dev' AND {} ORDER BY seq",
                record.filter.predicate()
            );
            let rows = client.query(&query, &[]).await.unwrap();
            let log = rows.iter().map(|row| row.get(0)).collect();
            readers.push(Account::of(record, log));
        }
        readers.sort_by(|a, b| a.name.cmp(&b.name));
        let among = |ids: &[String], wanted: fn(usize) -> bool| {
            let count = |id: &&String| wanted(stored.get(*id).copied().unwrap_or_default());
            ids.iter().filter(count).cloned().collect::<Vec<_>>()
        };
        Self {
            committed: stored.keys().filter(|id| !is_end(id)).count(),
            lost: among(&ledger.acknowledged, |count| count == 0),
            ghosts: among(&ledger.undone, |count| count > 0),
            doubled: stored
                .iter()
                .filter(|(_, count)| **count > 1)
                .map(|(id, _)| id.clone())
                .collect(),
            ledger,
            readers,
        }
    }

    /// Committed events that readers have not got, over all readers.
    pub fn missed(&self) -> usize {
        self.readers.iter().map(|reader| reader.missed).sum()
    }

    /// Every broken promise.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.ledger.complaints.clone();
        for (what, ids) in [
            ("acknowledged and lost", &self.lost),
            ("stored twice", &self.doubled),
            ("rolled back and stored", &self.ghosts),
        ] {
            if !ids.is_empty() {
                faults.push(format!("{} {what}: {:?}", ids.len(), ids.first()));
            }
        }
        for reader in &self.readers {
            let sum = reader.missed + reader.twice + reader.strangers + reader.disorder;
            if sum > 0 || !reader.complaints.is_empty() {
                faults.push(reader.to_string());
            }
        }
        faults
    }
}

impl Account {
    /// `log`: what matches its filter, in order. It counts up to the end marker that the reader saw first.
    fn of(record: Record, mut log: Vec<String>) -> Self {
        let end = record.seen.last().filter(|id| is_end(id));
        let end = end.and_then(|end| log.iter().position(|id| id == end));
        let mut complaints = record.complaints;
        match end {
            // A marker that this reader missed is not its end.
            Some(end) => log.truncate(end + 1),
            None => complaints.push("it did not reach the end".to_owned()),
        }
        let places: HashMap<&String, usize> = log.iter().zip(0..).collect();
        let (mut seen, mut twice, mut strangers, mut disorder) = (HashSet::new(), 0, 0, 0);
        let mut last = None;
        for id in &record.seen {
            let Some(place) = places.get(id).copied() else {
                strangers += 1;
                continue;
            };
            if !seen.insert(place) {
                twice += 1;
            } else if last.is_some_and(|last| place < last) {
                disorder += 1;
            }
            last = last.max(Some(place));
        }
        Self {
            name: record.name,
            resumes: record.resumes,
            got: record.seen.len(),
            missed: log.len() - seen.len(),
            twice,
            strangers,
            disorder,
            complaints,
        }
    }
}

/// Whether it is the id of an event that marks the end of the history.
pub fn is_end(id: &str) -> bool {
    id.starts_with("end-")
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {} events in {} connections, {} missed, {} twice, {} strangers, {} out of order {:?}",
            self.name,
            self.got,
            self.resumes + 1,
            self.missed,
            self.twice,
            self.strangers,
            self.disorder,
            self.complaints
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} events committed; {}", self.committed, self.ledger)?;
        for reader in &self.readers {
            writeln!(out, "  {reader}")?;
        }
        Ok(())
    }
}
