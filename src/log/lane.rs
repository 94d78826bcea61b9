//! One connection that writes batches, one after the other.
//!
//! # Invariants
//! - The usual batch is one statement and one round trip. Only when an id turns out to be known, or a group has
//!   expectations, does it look before it writes (`tidewire.append_many`).
//! - A group is answered once. Until its deadline it survives a lost connection, a restarting database and a deadlock;
//!   since every event has an id, sending it again stores nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use tokio_util::sync::CancellationToken;

use super::append::{Group, Queue};
use super::error::{AppendError, Remedy, Unavailable, remedy};
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::event::{Label, NewEvent, Payload, Position, Seq};
use crate::pg::Connector;
use crate::tasks::pause;
use serde_json::value::RawValue;

const INSERT: &str = "
    INSERT INTO tidewire.events (tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace, data,
                                 bytes, content_type)
    SELECT i.tenant, i.id, i.topic, i.subject, i.source, i.priority::tidewire.priority, i.occurred_at, i.region,
           i.gdpr::jsonb, i.trace, i.data::jsonb, i.bytes, i.content_type
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
                  $9::text[], $10::text[], $11::text[], $12::bytea[], $13::text[])
           AS i(tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace, data, bytes,
                content_type)
    RETURNING seq, recorded_at";

const APPEND_MANY: &str = "
    SELECT seq, recorded_at, outcome
      FROM tidewire.append_many($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[INSERT, APPEND_MANY];

/// After a known id, so many batches look before they write: retries come in runs.
const LOOK_UPS_AFTER_DUPLICATE: u32 = 64;

const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// What became of one member: its place and whether it was known, or why it was not stored.
pub type Outcome = Result<(Position, bool), AppendError>;

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
struct Member<'a> {
    tenant: &'a str,
    id: &'a str,
    event: &'a NewEvent,
    expected: Option<Seq>,
    /// Members with the same number are stored together or not at all.
    unit: i32,
}

/// Writes batches over a connection of its own.
#[derive(Debug)]
pub struct Lane {
    purpose: String,
    connector: Connector,
    committed: Arc<Notify>,
    connection: Option<Connection>,
    look_ups: u32,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    insert: Statement,
    append_many: Statement,
}

impl Lane {
    /// A lane that connects when it first writes. `committed` is signalled after each commit.
    #[must_use]
    pub fn new(number: usize, connector: Connector, committed: Arc<Notify>) -> Self {
        Self {
            purpose: format!("append {number}"),
            connector,
            committed,
            connection: None,
            look_ups: 0,
        }
    }

    /// Writes what the queue holds until `stop`; a batch that was taken is finished.
    pub async fn run(mut self, queue: &Queue, stop: &CancellationToken) {
        // Connected before the first event, so that it does not wait for it.
        let _ = stop.run_until_cancelled(self.connect()).await;
        while let Some(batch) = stop.run_until_cancelled(queue.next_batch()).await {
            self.write(batch).await;
        }
    }

    async fn write(&mut self, batch: Vec<Group>) {
        let deadline = batch
            .iter()
            .map(|group| group.deadline)
            .min()
            .unwrap_or_else(Instant::now);
        let members = members(&batch);
        let outcomes = match self.write_until(&members, deadline).await {
            Ok(outcomes) => outcomes,
            // One of several is at fault: each by itself, so that only that one fails.
            Err(AppendError::Refused { .. } | AppendError::Internal(_)) if members.len() > 1 => {
                let mut outcomes = Vec::with_capacity(members.len());
                for unit in members.chunk_by(|a, b| a.unit == b.unit) {
                    match self.write_until(unit, deadline).await {
                        Ok(some) => outcomes.extend(some),
                        Err(error) => outcomes.extend(unit.iter().map(|_| Err(twin(&error)))),
                    }
                }
                outcomes
            }
            Err(error) => members.iter().map(|_| Err(twin(&error))).collect(),
        };
        self.committed.notify_one();
        let mut outcomes = outcomes.into_iter();
        for group in batch {
            let own = outcomes.by_ref().take(group.events.len()).collect();
            group.answer(own);
        }
    }

    /// Writes the members, reconnecting and retrying until `deadline`.
    async fn write_until(
        &mut self,
        members: &[Member<'_>],
        deadline: Instant,
    ) -> Result<Vec<Outcome>, AppendError> {
        let mut backoff = BACKOFF_MIN;
        let mut look_up =
            self.look_ups > 0 || members.iter().any(|member| member.expected.is_some());
        loop {
            let trouble = match self.attempt(members, look_up).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(Remedy::LookUp) => {
                    look_up = true;
                    self.look_ups = LOOK_UPS_AFTER_DUPLICATE;
                    if Instant::now() < deadline {
                        continue;
                    }
                    Unavailable::Silent
                }
                Err(Remedy::Refuse(error)) => return Err(error),
                Err(Remedy::Retry(error)) => Unavailable::Lost(error),
                Err(Remedy::Reconnect(trouble)) => {
                    self.connection = None;
                    trouble
                }
            };
            if Instant::now()
                .checked_add(backoff)
                .is_none_or(|then| then >= deadline)
            {
                return Err(AppendError::Unavailable(trouble));
            }
            tracing::warn!(error = %trouble, lane = self.purpose, "an append is tried again");
            pause(backoff).await;
            backoff = backoff.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(
        &mut self,
        members: &[Member<'_>],
        look_up: bool,
    ) -> Result<Vec<Outcome>, Remedy> {
        if self
            .connection
            .as_ref()
            .is_none_or(|c| c.client.is_closed())
        {
            self.connect().await.map_err(Remedy::Reconnect)?;
        }
        let Some(connection) = &self.connection else {
            return Err(Remedy::Reconnect(Unavailable::Silent));
        };
        let columns = Columns::of(members);
        let work = async {
            if look_up {
                connection
                    .client
                    .query(&connection.append_many, &columns.with_expectations())
                    .await
            } else {
                connection
                    .client
                    .query(&connection.insert, &columns.plain())
                    .await
            }
        };
        let rows = tokio::time::timeout(DATABASE_SILENCE_MAX, work)
            .await
            .map_err(|_| Remedy::Reconnect(Unavailable::Silent))?
            .map_err(remedy)?;
        if look_up {
            self.look_ups = self.look_ups.saturating_sub(1);
        }
        let outcomes = rows
            .iter()
            .map(|row| outcome(row, look_up))
            .collect::<Result<Vec<_>, _>>()
            .map_err(remedy)?;
        if outcomes.len() == members.len() {
            Ok(outcomes)
        } else {
            Err(Remedy::Refuse(AppendError::Internal(
                "the database answered for fewer events than it was given".into(),
            )))
        }
    }

    async fn connect(&mut self) -> Result<(), Unavailable> {
        self.connection = None;
        let client = self.connector.connect(&self.purpose).await?;
        let prepared = async {
            // A backend that has lost its server must not hold a floor for long.
            client.batch_execute("SET idle_in_transaction_session_timeout = '10s'; SET statement_timeout = '10s'").await?;
            Ok::<_, tokio_postgres::Error>((
                client.prepare(INSERT).await?,
                client.prepare(APPEND_MANY).await?,
            ))
        };
        let (insert, append_many) = tokio::time::timeout(DATABASE_SILENCE_MAX, prepared)
            .await
            .map_err(|_| Unavailable::Silent)?
            .map_err(Unavailable::Lost)?;
        self.connection = Some(Connection {
            client,
            insert,
            append_many,
        });
        Ok(())
    }
}

/// The same error for another member of the batch.
fn twin(error: &AppendError) -> AppendError {
    match error {
        AppendError::Refused { reason } => AppendError::Refused {
            reason: reason.clone(),
        },
        AppendError::Clock(text) => AppendError::Clock(text.clone()),
        AppendError::Unavailable(_) => AppendError::Unavailable(Unavailable::Silent),
        other => AppendError::Internal(other.to_string()),
    }
}

/// Reads what became of one member.
fn outcome(row: &Row, look_up: bool) -> Result<Outcome, tokio_postgres::Error> {
    let seq: Option<Seq> = row.try_get(0)?;
    let at: Option<DateTime<Utc>> = row.try_get(1)?;
    let position = seq.zip(at).map(|(seq, at)| Position::new(seq, at));
    let word: &str = if look_up { row.try_get(2)? } else { "stored" };
    Ok(match (word, position) {
        ("stored", Some(position)) => Ok((position, false)),
        ("duplicate", Some(position)) => Ok((position, true)),
        ("id_conflict", _) => Err(AppendError::IdConflict { index: 0 }),
        ("expect_conflict", newest) => Err(AppendError::ExpectConflict { index: 0, newest }),
        _ => Err(AppendError::Skipped),
    })
}

/// The members of a batch, in order, with the numbers of their units.
fn members(batch: &[Group]) -> Vec<Member<'_>> {
    let mut members = Vec::with_capacity(batch.iter().map(|group| group.events.len()).sum());
    let mut unit = 0_i32;
    for group in batch {
        unit = unit.saturating_add(1);
        for ((event, id), expected) in group.events.iter().zip(&group.ids).zip(&group.expected) {
            members.push(Member {
                tenant: group.tenant.as_str(),
                id: id.as_str(),
                event,
                expected: *expected,
                unit,
            });
            if !group.is_atomic {
                unit = unit.saturating_add(1);
            }
        }
    }
    members
}

/// The batch as the parallel arrays of one statement.
struct Columns<'a> {
    tenants: Vec<&'a str>,
    ids: Vec<&'a str>,
    topics: Vec<&'a str>,
    subjects: Vec<Option<&'a str>>,
    sources: Vec<Option<&'a str>>,
    priorities: Vec<&'static str>,
    occurred_ats: Vec<Option<DateTime<Utc>>>,
    regions: Vec<Option<&'a str>>,
    gdprs: Vec<Option<&'a str>>,
    traces: Vec<Option<&'a str>>,
    datas: Vec<Option<&'a str>>,
    bytess: Vec<Option<&'a [u8]>>,
    content_types: Vec<Option<&'a str>>,
    units: Vec<i32>,
    expected: Vec<Option<Seq>>,
}

impl<'a> Columns<'a> {
    fn of(members: &[Member<'a>]) -> Self {
        let texts = |read: fn(&'a NewEvent) -> Option<&'a str>| {
            members.iter().map(|m| read(m.event)).collect::<Vec<_>>()
        };
        Self {
            tenants: members.iter().map(|m| m.tenant).collect(),
            ids: members.iter().map(|m| m.id).collect(),
            topics: members.iter().map(|m| m.event.topic.as_str()).collect(),
            subjects: texts(|e| e.subject.as_ref().map(Label::as_str)),
            sources: texts(|e| e.source.as_ref().map(Label::as_str)),
            priorities: members.iter().map(|m| m.event.priority.as_str()).collect(),
            occurred_ats: members.iter().map(|m| m.event.occurred_at).collect(),
            regions: texts(|e| e.region.as_ref().map(Label::as_str)),
            gdprs: texts(|e| e.gdpr.as_deref().map(RawValue::get)),
            traces: texts(|e| e.trace.as_deref()),
            datas: texts(|e| match &e.payload {
                Payload::Json(text) => Some(text.get()),
                _ => None,
            }),
            bytess: members
                .iter()
                .map(|m| match &m.event.payload {
                    Payload::Bytes { bytes, .. } => Some(bytes.as_ref()),
                    _ => None,
                })
                .collect(),
            content_types: texts(|e| match &e.payload {
                Payload::Bytes { content_type, .. } => Some(content_type.as_str()),
                _ => None,
            }),
            units: members.iter().map(|m| m.unit).collect(),
            expected: members.iter().map(|m| m.expected).collect(),
        }
    }

    fn plain(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.tenants,
            &self.ids,
            &self.topics,
            &self.subjects,
            &self.sources,
            &self.priorities,
            &self.occurred_ats,
            &self.regions,
            &self.gdprs,
            &self.traces,
            &self.datas,
            &self.bytess,
            &self.content_types,
        ]
    }

    fn with_expectations(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut columns = self.plain();
        columns.push(&self.units);
        columns.push(&self.expected);
        columns
    }
}
