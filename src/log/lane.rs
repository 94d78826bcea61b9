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
use crate::event::{NewEvent, Payload, Position, Seq};
use crate::pg::Connector;
use crate::tasks::pause;

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

/// After a known id, so many batches look before they write: retries come in runs.
const LOOK_UPS_AFTER_DUPLICATE: u32 = 64;

const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

type Places = Vec<(Position, bool)>;

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
            self.committed.notify_one();
        }
    }

    async fn write(&mut self, batch: Vec<Group>) {
        let deadline = batch
            .iter()
            .map(|group| group.deadline)
            .min()
            .unwrap_or_else(Instant::now);
        match self.write_until(&batch, deadline).await {
            Ok(places) => answer_all(batch, places),
            // One group is at fault, and it is this one.
            Err(error) if batch.len() == 1 => batch
                .into_iter()
                .for_each(|group| group.answer(Err(twin(&error)))),
            Err(AppendError::Refused { .. } | AppendError::Internal(_)) => {
                // One of several is at fault: each by itself, so that only that one fails.
                for group in batch {
                    let deadline = group.deadline;
                    let alone = vec![group];
                    match self.write_until(&alone, deadline).await {
                        Ok(places) => answer_all(alone, places),
                        Err(error) => alone
                            .into_iter()
                            .for_each(|group| group.answer(Err(twin(&error)))),
                    }
                }
            }
            Err(error) => batch
                .into_iter()
                .for_each(|group| group.answer(Err(twin(&error)))),
        }
    }

    /// Writes the batch, reconnecting and retrying until `deadline`. One result a group.
    async fn write_until(
        &mut self,
        batch: &[Group],
        deadline: Instant,
    ) -> Result<Vec<Result<Places, AppendError>>, AppendError> {
        let mut backoff = BACKOFF_MIN;
        let mut look_up = self.look_ups > 0 || batch.iter().any(Group::has_expectations);
        loop {
            let trouble = match self.attempt(batch, look_up).await {
                Ok(results) => return Ok(results),
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
        batch: &[Group],
        look_up: bool,
    ) -> Result<Vec<Result<Places, AppendError>>, Remedy> {
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
        let columns = Columns::of(batch);
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
        outcomes(batch, &rows, look_up).map_err(remedy)
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

fn answer_all(batch: Vec<Group>, results: Vec<Result<Places, AppendError>>) {
    for (group, result) in batch.into_iter().zip(results) {
        group.answer(result);
    }
}

/// The same error for another group of the batch.
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

/// Reads the rows of a batch, group by group.
fn outcomes(
    batch: &[Group],
    rows: &[Row],
    look_up: bool,
) -> Result<Vec<Result<Places, AppendError>>, tokio_postgres::Error> {
    let mut rows = rows.iter();
    let mut results = Vec::with_capacity(batch.len());
    for group in batch {
        let mut places = Places::with_capacity(group.events.len());
        let mut failure = None;
        for (index, row) in rows.by_ref().take(group.events.len()).enumerate() {
            let seq: Option<Seq> = row.try_get(0)?;
            let at: Option<DateTime<Utc>> = row.try_get(1)?;
            let position = seq.zip(at).map(|(seq, at)| Position::new(seq, at));
            let outcome: &str = if look_up { row.try_get(2)? } else { "stored" };
            match (outcome, position) {
                ("stored", Some(position)) => places.push((position, false)),
                ("duplicate", Some(position)) => places.push((position, true)),
                ("id_conflict", _) => failure = failure.or(Some(AppendError::IdConflict { index })),
                ("expect_conflict", newest) => {
                    failure = failure.or(Some(AppendError::ExpectConflict { index, newest }));
                }
                _ => {}
            }
        }
        results.push(match failure {
            Some(error) => Err(error),
            None if places.len() == group.events.len() => Ok(places),
            None => Err(AppendError::Internal(
                "the database answered for fewer events than it was given".into(),
            )),
        });
    }
    Ok(results)
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
    group_nos: Vec<i32>,
    expected: Vec<Option<Seq>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [Group]) -> Self {
        let members = || batch.iter().flat_map(|group| group.events.iter());
        let column =
            |read: fn(&'a NewEvent) -> Option<&'a str>| members().map(read).collect::<Vec<_>>();
        Self {
            tenants: batch
                .iter()
                .flat_map(|g| g.events.iter().map(|_| g.tenant.as_str()))
                .collect(),
            ids: batch
                .iter()
                .flat_map(|g| g.ids.iter().map(crate::event::EventId::as_str))
                .collect(),
            topics: members().map(|e| e.topic.as_str()).collect(),
            subjects: column(|e| e.subject.as_ref().map(crate::event::Label::as_str)),
            sources: column(|e| e.source.as_ref().map(crate::event::Label::as_str)),
            priorities: members().map(|e| e.priority.as_str()).collect(),
            occurred_ats: members().map(|e| e.occurred_at).collect(),
            regions: column(|e| e.region.as_ref().map(crate::event::Label::as_str)),
            gdprs: column(|e| e.gdpr.as_deref().map(serde_json::value::RawValue::get)),
            traces: column(|e| e.trace.as_deref()),
            datas: column(|e| match &e.payload {
                Payload::Json(text) => Some(text.get()),
                _ => None,
            }),
            bytess: members()
                .map(|e| match &e.payload {
                    Payload::Bytes { bytes, .. } => Some(bytes.as_ref()),
                    _ => None,
                })
                .collect(),
            content_types: column(|e| match &e.payload {
                Payload::Bytes { content_type, .. } => Some(content_type.as_str()),
                _ => None,
            }),
            group_nos: (1_i32..)
                .zip(batch)
                .flat_map(|(no, g)| g.events.iter().map(move |_| no))
                .collect(),
            expected: batch
                .iter()
                .flat_map(|g| g.expected.iter().copied())
                .collect(),
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
        columns.push(&self.group_nos);
        columns.push(&self.expected);
        columns
    }
}
