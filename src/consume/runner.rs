//! Runs a consumer: waits until it is this server's turn, and then takes step after step.
//!
//! # Invariants
//! - The worker that holds the session's lock is active. The lock goes with its connection: when the process dies, when its
//!   statements are not answered in time, and when the database has heard nothing of it for as long as `SESSION` says, as of a machine
//!   that has stopped.
//! - A step is one transaction: it begins at the stored place, and moves it only if nobody else has.
//! - One that is paused, by a mark in the database, takes no step and keeps its place and its worker.
//! - The stored place is that of an event or of a committed change, never a watermark: a database that crashes gives out places
//!   again that were not committed.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::standing::Standing;
use crate::backoff::Backoff;
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::event::{Position, Seq};
use crate::log::Unavailable;
use crate::pg::Connector;
use crate::tasks::pause;

/// One worker a name and database.
const CLAIM: &str = "SELECT pg_try_advisory_lock(1953064040, hashtext($1))";
/// Held to the end of the step: whoever pauses it waits for that. The stored place, no further than the life of the log in which it came there is shared with this one; how much earlier what
/// follows it may be dated; and the watermark, after which rows are read in a snapshot of their own.
const PLACE: &str = "
    SELECT c.seq, least(c.seq, coalesce((SELECT min(e.after_seq) FROM tidewire.epochs AS e WHERE e.epoch > c.epoch), c.seq)),
           c.recorded_at, extract(epoch FROM l.disorder_max)::bigint, w.watermark, w.newest, c.paused_at IS NOT NULL
      FROM tidewire.consumers AS c CROSS JOIN tidewire.log AS l CROSS JOIN tidewire.watermark() AS w WHERE c.name = $1
       FOR NO KEY UPDATE OF c";
/// For whoever does not run it.
const IS_PAUSED: &str =
    "SELECT c.paused_at IS NOT NULL FROM tidewire.consumers AS c WHERE c.name = $1";
const MOVE: &str = "
    UPDATE tidewire.consumers AS c
       SET seq = $3, recorded_at = $4, epoch = (SELECT max(e.epoch) FROM tidewire.epochs AS e), moved_at = clock_timestamp()
     WHERE c.name = $1 AND c.seq = $2";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[CLAIM, PLACE, IS_PAUSED, MOVE];

/// What was not flushed before a crash is done again, place and effect alike; a transaction that writes events waits for the disk
/// whatever stands here (`sql/functions/claim_floor.sql`). No slot: what it writes wakes this server as any other, and is no
/// client's for the audit.
const SESSION: &str = "SET statement_timeout = '4500ms'; SET lock_timeout = '4s'; SET plan_cache_mode = force_custom_plan; SET jit = off;
    SET synchronous_commit = off; SET tidewire.own_slot = '-1';
    SET idle_session_timeout = '8s'; SET idle_in_transaction_session_timeout = '8s'";

/// How often to look whether it is this server's turn: about as long another's end goes unnoticed.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two steps that found all there is.
const STEP_INTERVAL: Duration = Duration::from_millis(250);
/// Between two steps that found nothing to do at all.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a step may take: a few statements, each of which the database ends sooner.
const STEP_MAX: Duration = Duration::from_secs(10);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// Where a step begins.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// It has come up to here.
    pub after: Position,
    /// What follows may be dated so many seconds earlier.
    pub disorder_s: i64,
    /// It may go up to here.
    pub watermark: Seq,
}

/// When to take the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more to do.
    AtOnce,
    /// All up to the watermark is done.
    Soon,
    /// Nobody wants anything: what lies in the log is none of its business.
    Later,
}

/// What a step has done.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// It has come up to here: an event, or a committed change.
    pub through: Position,
    /// When to go on.
    pub next: Next,
}

/// What follows the log under a name of its own.
pub trait Consumer: Send {
    /// In `tidewire.consumers`.
    const NAME: &'static str;
    /// For `application_name`.
    const PURPOSE: &'static str;

    /// Takes a step, within the transaction in which the place moves.
    ///
    /// # Errors
    /// If the database cannot be asked: then nothing has been done.
    fn step(
        &mut self,
        transaction: &Transaction<'_>,
        place: &Place,
    ) -> impl Future<Output = Result<Step, Unavailable>> + Send;

    /// Another worker may have been active since: what was remembered counts no more.
    fn forget(&mut self);
}

/// Runs `consumer` for ever, whenever it is this server's turn.
pub async fn run<C: Consumer>(connector: Connector, mut consumer: C, standing: Standing) {
    let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
    loop {
        consumer.forget();
        let ended = work(&connector, &mut consumer, &standing, &mut backoff).await;
        standing.set_active(false);
        if let Err(error) = ended {
            let consumer = C::NAME;
            tracing::warn!(consumer, %error, "a consumer is interrupted: trying again");
        }
        pause(backoff.next_delay()).await;
    }
}

/// Until the connection ends, or another has moved the place.
async fn work<C: Consumer>(
    connector: &Connector,
    consumer: &mut C,
    standing: &Standing,
    backoff: &mut Backoff,
) -> Result<(), Unavailable> {
    let mut client = connector.connect(C::PURPOSE).await?;
    in_time(DATABASE_SILENCE_MAX, client.batch_execute(SESSION)).await?;
    loop {
        let claimed = in_time(DATABASE_SILENCE_MAX, client.query_one(CLAIM, &[&C::NAME]));
        let is_ours: bool = claimed.await?.try_get(0)?;
        backoff.reset();
        if is_ours {
            break;
        }
        let asked = in_time(
            DATABASE_SILENCE_MAX,
            client.query_one(IS_PAUSED, &[&C::NAME]),
        );
        standing.set_paused(asked.await?.try_get(0)?);
        standing.set_seen();
        pause(STANDBY_INTERVAL).await;
    }
    let consumer_name = C::NAME;
    tracing::debug!(
        consumer = consumer_name,
        "this server runs the consumer now"
    );
    loop {
        let step = step(&mut client, consumer, standing);
        let next = tokio::time::timeout(STEP_MAX, step)
            .await
            .map_err(|_| Unavailable::Silent)??;
        // Not before: one whose steps do not come to an end is run by nobody.
        standing.set_active(true);
        standing.set_seen();
        match next {
            Some(Next::AtOnce) => tokio::task::yield_now().await,
            Some(Next::Soon) => pause(STEP_INTERVAL).await,
            Some(Next::Later) => pause(IDLE_INTERVAL).await,
            None => return Ok(()),
        }
    }
}

/// `None`: somebody else has moved the place, and what this step has done is taken back.
async fn step<C: Consumer>(
    client: &mut Client,
    consumer: &mut C,
    standing: &Standing,
) -> Result<Option<Next>, Unavailable> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    let row = transaction.query_one(PLACE, &[&C::NAME]).await?;
    let (stored, shared): (Seq, Seq) = (row.try_get(0)?, row.try_get(1)?);
    let place = Place {
        after: Position::new(shared, row.try_get(2)?),
        disorder_s: row.try_get(3)?,
        watermark: row.try_get(4)?,
    };
    let (newest, is_paused): (Seq, bool) = (row.try_get(5)?, row.try_get(6)?);
    standing.set_paused(is_paused);
    if is_paused {
        transaction.rollback().await?;
        // What is declared may be another thing when it goes on.
        consumer.forget();
        standing.set_lag(newest.saturating_sub(stored));
        return Ok(Some(Next::Later));
    }
    let Step { through, next } = consumer.step(&transaction, &place).await?;
    if through.seq != stored {
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&C::NAME, &stored, &through.seq, &through.at()];
        if transaction.execute(MOVE, &params).await? == 0 {
            return Ok(None);
        }
    }
    transaction.commit().await?;
    let passed = if next == Next::AtOnce {
        through.seq
    } else {
        place.watermark
    };
    standing.set_lag(newest.saturating_sub(passed));
    Ok(Some(next))
}

async fn in_time<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Unavailable> {
    let answered = tokio::time::timeout(limit, asked).await;
    Ok(answered.map_err(|_| Unavailable::Silent)??)
}
