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
use tokio_postgres::{Client, Row, Statement};
use tokio_util::sync::CancellationToken;

use super::batch::{Columns, Member, members};
use super::error::{AppendError, Remedy, Unavailable, remedy};
use super::identity::Identity;
use super::inbox::{Commit, Inbox};
use super::listener::Listener;
use super::queue::{Group, Queue};
use super::row::event_columns;
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::event::{Position, Seq};
use crate::pg::Connector;
use crate::tasks::pause;

/// Returns the rows as the tail reads them, which then need not read them back. `own_slot`: this server learns of the
/// commit by itself, so `wake_servers` need not wake it. The arrays stand in the target list, where they are read in
/// step: in FROM each would be copied first, a tenth of the statement's time.
const INSERT: &str = concat!(
    "
    INSERT INTO tidewire.events AS e (tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace, data,
                                      bytes, content_type)
    SELECT i.tenant, i.id, i.topic, i.subject, i.source, i.priority::tidewire.priority, i.occurred_at, i.region,
           i.gdpr::jsonb, i.trace, i.data::jsonb, i.bytes, i.content_type
      FROM (SELECT unnest($1::text[]) AS tenant, unnest($2::text[]) AS id, unnest($3::text[]) AS topic,
                   unnest($4::text[]) AS subject, unnest($5::text[]) AS source, unnest($6::text[]) AS priority,
                   unnest($7::timestamptz[]) AS occurred_at, unnest($8::text[]) AS region, unnest($9::text[]) AS gdpr,
                   unnest($10::text[]) AS trace, unnest($11::text[]) AS data, unnest($12::bytea[]) AS bytes,
                   unnest($13::text[]) AS content_type) AS i
     WHERE (SELECT set_config('tidewire.own_slot', $14, true)) IS NOT NULL
    RETURNING ",
    event_columns!()
);

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

/// Writes batches over a connection of its own.
#[derive(Debug)]
pub struct Lane {
    purpose: String,
    connector: Connector,
    identity: Identity,
    inbox: Arc<Inbox>,
    listener: Listener,
    connection: Option<Connection>,
    look_ups: u32,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    insert: Statement,
    append_many: Statement,
    /// The life of the log behind it.
    epoch: u16,
}

/// A batch that is committed.
struct Written {
    outcomes: Vec<Outcome>,
    /// The rows, if the statement returned them.
    commit: Option<Commit>,
}

impl Lane {
    /// A lane that connects when it first writes. What it commits goes to `inbox`; `listener` knows this server's slot.
    #[must_use]
    pub fn new(
        number: usize,
        connector: Connector,
        identity: Identity,
        inbox: Arc<Inbox>,
        listener: Listener,
    ) -> Self {
        Self {
            purpose: format!("append {number}"),
            connector,
            identity,
            inbox,
            listener,
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
        let inbox = Arc::clone(&self.inbox);
        let writing = inbox.begin();
        let members = members(&batch);
        let outcomes = match self.write_until(&members, deadline).await {
            Ok(Written { outcomes, commit }) => {
                if let Some(commit) = commit {
                    writing.commit(commit, batch.iter().map(|group| group.weight).sum());
                } else {
                    drop(writing);
                }
                outcomes
            }
            // One of several is at fault: each by itself, so that only that one fails.
            Err(AppendError::Refused { .. } | AppendError::Internal(_)) if members.len() > 1 => {
                let mut outcomes = Vec::with_capacity(members.len());
                for unit in members.chunk_by(|a, b| a.unit == b.unit) {
                    match self.write_until(unit, deadline).await {
                        Ok(some) => outcomes.extend(some.outcomes),
                        Err(error) => outcomes.extend(unit.iter().map(|_| Err(twin(&error)))),
                    }
                }
                drop(writing);
                outcomes
            }
            Err(error) => {
                drop(writing);
                members.iter().map(|_| Err(twin(&error))).collect()
            }
        };
        let mut outcomes = outcomes.into_iter();
        let mut spent = Vec::with_capacity(batch.len());
        for group in batch {
            let own = outcomes.by_ref().take(group.events.len()).collect();
            spent.push(group.answer(own));
        }
        // Whoever was answered goes first: it may bring the next batch.
        tokio::task::yield_now().await;
        drop(spent);
    }

    /// Writes the members, reconnecting and retrying until `deadline`.
    async fn write_until(
        &mut self,
        members: &[Member<'_>],
        deadline: Instant,
    ) -> Result<Written, AppendError> {
        let mut backoff = BACKOFF_MIN;
        let mut look_up =
            self.look_ups > 0 || members.iter().any(|member| member.expected.is_some());
        loop {
            let trouble = match self.attempt(members, look_up).await {
                Ok(written) => return Ok(written),
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

    async fn attempt(&mut self, members: &[Member<'_>], look_up: bool) -> Result<Written, Remedy> {
        let epoch = self.identity.known().identity.epoch;
        if self
            .connection
            .as_ref()
            .is_none_or(|c| c.client.is_closed() || c.epoch != epoch)
        {
            self.connect().await.map_err(Remedy::Reconnect)?;
        }
        let Some(connection) = &self.connection else {
            return Err(Remedy::Reconnect(Unavailable::Silent));
        };
        let columns = Columns::of(members);
        let own_slot = self.listener.slot().to_string();
        let work = async {
            if look_up {
                connection
                    .client
                    .query(&connection.append_many, &columns.with_expectations())
                    .await
            } else {
                connection
                    .client
                    .query(&connection.insert, &columns.of_slot(&own_slot))
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
            let commit = (!look_up).then_some(Commit {
                epoch: connection.epoch,
                rows,
            });
            Ok(Written { outcomes, commit })
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
            // A backend that has lost its server must not hold a floor for long. One plan for all batches: making one for
            // the arrays at hand takes longer than the insert of a few events.
            client
                .batch_execute(
                    "SET idle_in_transaction_session_timeout = '10s'; SET statement_timeout = '10s';
                     SET plan_cache_mode = force_generic_plan; SET jit = off",
                )
                .await?;
            // The database behind the address may be another one now, and its log in another life.
            self.identity.reload(&client).await?;
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
            epoch: self.identity.known().identity.epoch,
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
