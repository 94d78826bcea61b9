//! One connection that writes batches, a statement each.
//!
//! # Invariants
//! - A batch is stored by one statement, or nothing of it is.
//! - The usual batch is one round trip. Only when an id turns out to be known, or there are expectations, does the database
//!   look before it writes (`tidewire.append_many`).

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, Statement};

use super::batch::{Columns, Member, middle};
use super::breaker::Breaker;
use super::error::{AppendError, Remedy, Unavailable, finding, remedy};
use super::identity::Identity;
use super::inbox::Commit;
use super::listener::Listener;
use super::row::event_columns;
use super::trouble::Finding;
use crate::backoff::Backoff;
use crate::event::limits::{DATABASE_SILENCE_MAX, STATEMENT_MAX};
use crate::event::{Position, Seq};
use crate::pg::{Connector, Resource};
use crate::tasks::pause;
use crate::telemetry::{AppendMetrics, Metrics, RetryCause, Traces};

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

/// A server writes, says its slot, which is nobody's: this one reads these rows back, so it is to be woken. First, since the
/// function is given what comes of it.
const APPEND_MANY: &str = "
    WITH own AS MATERIALIZED (SELECT set_config('tidewire.own_slot', '-1', true) AS slot)
    SELECT m.seq, m.recorded_at, m.outcome
      FROM own AS o, tidewire.append_many(CASE WHEN o.slot IS NOT NULL THEN $1::text[] END, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                                          $11, $12, $13, $14, $15) AS m";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[INSERT, APPEND_MANY];

/// After a known id, so many batches look before they write: retries come in runs.
const LOOK_UPS_AFTER_DUPLICATE: u32 = 64;

/// How long a statement waits for other transactions if nothing else is said: behind it wait others who have nothing to do
/// with them. Shorter than [`DATABASE_SILENCE_MAX`], so that the database gives up first and nothing is left under way.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

const BACKOFF_MIN: Duration = Duration::from_millis(10);
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// What became of one member: its place and whether it was known, or why it was not stored.
pub type Outcome = Result<(Position, bool), AppendError>;

/// A batch that is committed.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) outcomes: Vec<Outcome>,
    /// The rows, if the statement returned them.
    pub(super) commit: Option<Commit>,
}

/// For how long a batch is tried, and what is asked before it is tried again.
#[derive(Clone, Copy)]
pub(super) struct Attempts<'a> {
    pub(super) deadline: Instant,
    /// Whether all of it may still be written.
    pub(super) may: &'a (dyn Fn() -> bool + Send + Sync),
    /// Whether it is made of several groups: a line that is slow as well may pass fewer.
    pub(super) has_others: bool,
}

/// Why a batch has not been written.
#[derive(Debug)]
pub(super) enum Stopped {
    /// For this.
    Failed(AppendError),
    /// It was to be tried again, and not all of it may be written any more.
    NotAll,
    /// It takes longer than a statement may.
    Slow(Unavailable),
}

/// See the module. Connects when it is asked to, and anew when the connection is lost.
#[derive(Debug)]
pub struct Writer {
    purpose: String,
    /// How long a statement waits for other transactions.
    lock_timeout: Duration,
    connector: Connector,
    identity: Identity,
    listener: Listener,
    connection: Option<Connection>,
    look_ups: u32,
    breaker: Breaker,
    metrics: Metrics,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    insert: Statement,
    append_many: Statement,
    /// The life of the log behind it.
    epoch: u16,
}

impl Writer {
    /// A writer for `purpose`, which the database shows. `listener` knows this server's slot.
    #[must_use]
    pub const fn new(
        purpose: String,
        connector: Connector,
        identity: Identity,
        listener: Listener,
        breaker: Breaker,
        metrics: Metrics,
    ) -> Self {
        Self {
            purpose,
            lock_timeout: LOCK_TIMEOUT,
            connector,
            identity,
            listener,
            connection: None,
            look_ups: 0,
            breaker,
            metrics,
        }
    }

    /// Writes the members, reconnecting and retrying until the deadline, but not if another transaction is in the way or the
    /// breaker is open. What took too long and can be divided is not tried again as it is.
    pub(super) async fn write_until(
        &mut self,
        members: &[Member<'_>],
        attempts: Attempts<'_>,
    ) -> Result<Written, Stopped> {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        let mut look_up =
            self.look_ups > 0 || members.iter().any(|member| member.expected.is_some());
        loop {
            let passed = self.breaker.pass(Instant::now());
            let pass = passed.map_err(|tripped| Stopped::Failed(tripped.into()))?;
            let written = self.write(members, look_up).await;
            let found = written.as_ref().err().map_or(Finding::There, finding);
            pass.end(found, Instant::now());
            let is_slow = match &written {
                // Else it was connecting that took too long.
                Err(Remedy::Reconnect(Unavailable::Silent)) => {
                    attempts.has_others && self.connection.is_some()
                }
                Err(Remedy::Retry(error)) => {
                    error.code() == Some(&SqlState::QUERY_CANCELED) && middle(members).is_some()
                }
                _ => false,
            };
            let trouble = match written {
                Ok(written) => {
                    self.stored();
                    return Ok(written);
                }
                Err(Remedy::LookUp) => {
                    look_up = true;
                    self.look_ups = LOOK_UPS_AFTER_DUPLICATE;
                    if !(attempts.may)() {
                        return Err(Stopped::NotAll);
                    }
                    if Instant::now() < attempts.deadline {
                        continue;
                    }
                    Unavailable::Silent
                }
                Err(Remedy::Wait(_)) => return Err(Stopped::Failed(AppendError::Blocked)),
                Err(Remedy::Refuse(error)) => return Err(Stopped::Failed(error)),
                Err(Remedy::Retry(error)) => {
                    self.breaker.shortages().note(&error);
                    Resource::lacking(&error).map_or(Unavailable::Lost(error), Unavailable::Lacking)
                }
                Err(Remedy::Reconnect(trouble)) => {
                    self.connection = None;
                    trouble
                }
            };
            if is_slow {
                return Err(Stopped::Slow(trouble));
            }
            let delay = backoff.next_delay();
            let then = Instant::now().checked_add(delay);
            if then.is_none_or(|then| then >= attempts.deadline) {
                return Err(Stopped::Failed(AppendError::Unavailable(trouble)));
            }
            self.retries(&trouble);
            pause(delay).await;
            // Of whoever may no longer write nothing is written, however long ago it was asked first.
            if !(attempts.may)() {
                return Err(Stopped::NotAll);
            }
        }
    }

    /// It is tried again, for this reason.
    pub(super) fn retries(&self, trouble: &Unavailable) {
        tracing::warn!(error = %trouble, lane = self.purpose, "an append is tried again");
        self.metrics.database.retried(cause(trouble));
    }

    /// Whoever stores finds room for it.
    fn stored(&self) {
        for resource in [Resource::Disk, Resource::Memory] {
            self.breaker.shortages().is_over(resource);
        }
    }

    /// Waits until a batch may pass the breaker, as far as is known.
    pub(super) async fn ready(&self) {
        self.breaker.ready().await;
    }

    /// What whoever is not to wait for the database is told.
    pub(super) fn turned_away(&self, retry_after: Duration) -> AppendError {
        self.breaker.turned_away(retry_after).into()
    }

    /// What is counted of appends.
    pub(super) fn metrics(&self) -> &AppendMetrics {
        &self.metrics.append
    }

    /// Where spans go.
    pub(super) fn traces(&self) -> &Traces {
        &self.metrics.traces
    }

    /// From now on a statement waits so long for other transactions.
    pub(super) async fn wait_for_locks(&mut self, lock_timeout: Duration) {
        if self.lock_timeout == lock_timeout {
            return;
        }
        self.lock_timeout = lock_timeout;
        let Some(connection) = &self.connection else {
            return;
        };
        let statement = format!("SET lock_timeout = {}", lock_timeout.as_millis());
        let set = connection.client.batch_execute(&statement);
        if !matches!(
            tokio::time::timeout(DATABASE_SILENCE_MAX, set).await,
            Ok(Ok(()))
        ) {
            self.connection = None;
        }
    }

    /// Stores the members, or says what to do instead.
    async fn write(&mut self, members: &[Member<'_>], look_up: bool) -> Result<Written, Remedy> {
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
        let began = Instant::now();
        let rows = tokio::time::timeout(DATABASE_SILENCE_MAX, work)
            .await
            .map_err(|_| Remedy::Reconnect(Unavailable::Silent))?
            .map_err(remedy)?;
        self.metrics.append.batch(members.len(), began.elapsed());
        if look_up {
            self.look_ups = self.look_ups.saturating_sub(1);
        }
        let outcomes = rows
            .iter()
            .map(|row| outcome(row, look_up))
            .collect::<Result<Vec<_>, _>>()
            .map_err(remedy)?;
        if outcomes.len() == members.len() {
            let commit = (!look_up).then(|| Commit {
                epoch: connection.epoch,
                rows,
                received: members.iter().map(|member| member.received).collect(),
                committed: Instant::now(),
            });
            Ok(Written { outcomes, commit })
        } else {
            Err(Remedy::Refuse(AppendError::Internal(
                "the database answered for fewer events than it was given".into(),
            )))
        }
    }

    /// Opens a connection, as what this server writes needs it.
    pub(super) async fn connect(&mut self) -> Result<(), Unavailable> {
        self.connection = None;
        let client = self.connector.connect(&self.purpose).await?;
        let prepared = async {
            // A backend that has lost its server must not hold a floor for long. One plan for all batches: making one for
            // the arrays at hand takes longer than the insert of a few events.
            client
                .batch_execute(&format!(
                    "SET idle_in_transaction_session_timeout = '10s'; SET statement_timeout = {};
                     SET lock_timeout = {}; SET plan_cache_mode = force_generic_plan; SET jit = off",
                    STATEMENT_MAX.as_millis(),
                    self.lock_timeout.as_millis()
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

fn cause(trouble: &Unavailable) -> RetryCause {
    match trouble {
        Unavailable::Connect(_) | Unavailable::Pool(_) | Unavailable::Tripped(_) => {
            RetryCause::Connect
        }
        Unavailable::Silent => RetryCause::Silent,
        Unavailable::Lacking(_) => RetryCause::Shortage,
        // The database still answers: it has ended the statement itself.
        Unavailable::Lost(error) if !error.is_closed() && error.code().is_some() => {
            RetryCause::Conflict
        }
        Unavailable::Lost(_) => RetryCause::Lost,
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
