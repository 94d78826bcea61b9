//! One connection that writes batches, one after the other.
//!
//! # Invariants
//! - The usual batch is one statement and one round trip. Only when an id turns out to be known, or a group has
//!   expectations, does it look before it writes (`tidewire.append_many`).
//! - A transaction that holds an id or a subject holds up whoever shares it, and nobody else: a quick lane hands a group that
//!   has to wait to the patient ones.
//! - A group is answered once. Until its deadline it survives a lost connection, a restarting database and a deadlock;
//!   since every event has an id, sending it again stores nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row, Statement};
use tokio_util::sync::CancellationToken;

use super::batch::{Columns, Member, halves, members, middle};
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

/// So many groups of a batch that is blocked are tried by themselves; once so many had to wait, the rest waits with them.
const SET_ASIDE_TRIES: usize = 3;

const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// What became of one member: its place and whether it was known, or why it was not stored.
pub type Outcome = Result<(Position, bool), AppendError>;

/// How long a lane waits for other transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hardly: behind it wait others who have nothing to do with them.
    Quick,
    /// Until the group's deadline.
    Patient,
}

impl Kind {
    /// Shorter than [`DATABASE_SILENCE_MAX`], so that the database gives up first and nothing is left under way.
    const fn lock_timeout(self) -> &'static str {
        match self {
            Self::Quick => "200ms",
            Self::Patient => "4s",
        }
    }
}

/// Writes batches over a connection of its own.
#[derive(Debug)]
pub struct Lane {
    kind: Kind,
    purpose: String,
    connector: Connector,
    identity: Identity,
    inbox: Arc<Inbox>,
    listener: Listener,
    /// What has to wait for others.
    patient: Arc<Queue>,
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
        kind: Kind,
        number: usize,
        connector: Connector,
        identity: Identity,
        inbox: Arc<Inbox>,
        listener: Listener,
        patient: Arc<Queue>,
    ) -> Self {
        Self {
            kind,
            purpose: match kind {
                Kind::Quick => format!("append {number}"),
                Kind::Patient => format!("append patiently {number}"),
            },
            connector,
            identity,
            inbox,
            listener,
            patient,
            connection: None,
            look_ups: 0,
        }
    }

    /// Writes what the queue holds until `stop`; a batch that was taken is finished.
    pub async fn run(mut self, queue: &Queue, stop: &CancellationToken) {
        // Connected before the first event, so that it does not wait for it.
        if self.kind == Kind::Quick {
            let _ = stop.run_until_cancelled(self.connect()).await;
        }
        loop {
            let next = match self.kind {
                Kind::Quick => stop.run_until_cancelled(queue.next_batch()).await,
                // One at a time: what it waits for is not what the next waits for.
                Kind::Patient => stop.run_until_cancelled(self.patient.next_group()).await,
            };
            let Some(batch) = next else { return };
            let blocked = self.write(batch).await;
            self.set_aside(blocked).await;
        }
    }

    /// Writes a batch and answers it; gives it back if another transaction is in its way and this lane does not wait.
    async fn write(&mut self, batch: Vec<Group>) -> Vec<Group> {
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
            Err(AppendError::Blocked) => return batch,
            Err(error) if error.is_of_content() && middle(&members).is_some() => {
                let outcomes = self.write_in_parts(&members, deadline).await;
                drop(writing);
                outcomes
            }
            Err(error) => {
                drop(writing);
                members.iter().map(|_| Err(error.twin())).collect()
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
        Vec::new()
    }

    /// One of several units is at fault: halves, in order, until it stands alone and only it fails.
    async fn write_in_parts(&mut self, members: &[Member<'_>], deadline: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut parts = halves(members);
        while let Some(part) = parts.pop() {
            match self.write_until(part, deadline).await {
                Ok(written) => outcomes.extend(written.outcomes),
                Err(error) if error.is_of_content() && middle(part).is_some() => {
                    parts.extend(halves(part));
                }
                Err(error) => outcomes.extend(part.iter().map(|_| Err(error.twin()))),
            }
        }
        outcomes
    }

    /// Finds out which groups have to wait, and leaves them to the patient lanes. At the bound of their queue a group is
    /// dropped, which answers it: not stored in time.
    async fn set_aside(&mut self, batch: Vec<Group>) {
        let is_one = batch.len() == 1;
        let mut waiting = 0_usize;
        for group in batch {
            let blocked = if is_one || waiting >= SET_ASIDE_TRIES {
                vec![group]
            } else {
                self.write(vec![group]).await
            };
            waiting = waiting.saturating_add(blocked.len());
            for group in blocked {
                let _ = self.patient.push(group);
            }
        }
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
                Err(Remedy::Wait(error)) => {
                    if self.kind == Kind::Quick {
                        return Err(AppendError::Blocked);
                    }
                    Unavailable::Lost(error)
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
                .batch_execute(&format!(
                    "SET idle_in_transaction_session_timeout = '10s'; SET statement_timeout = '10s';
                     SET lock_timeout = '{}'; SET plan_cache_mode = force_generic_plan; SET jit = off",
                    self.kind.lock_timeout()
                ))
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
