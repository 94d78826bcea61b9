//! What the log needs now and then: chunks made ahead, old ids forgotten, retention, and noticing that it ran elsewhere.
//!
//! # Invariants
//! - What fails is tried again in a later round, and keeps nothing else of a round from being done.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::{Error, IsolationLevel};

use super::identity::Identity;
use super::read::History;
use super::retaining::{self, Removed};
use crate::pg::told;
use crate::tasks::pause;

const EXPIRE_KEYS: &str = "SELECT tidewire.expire_keys($1)";
const PREPARE_CHUNKS: &str = "SELECT tidewire.prepare_chunks()";
const RETAIN_OLDEST: &str = "SELECT tidewire.retain_oldest(make_interval(days => $1))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[EXPIRE_KEYS, PREPARE_CHUNKS, RETAIN_OLDEST];

const ROUND_INTERVAL: Duration = Duration::from_secs(30);
/// Ids forgotten in one statement.
const EXPIRE_ROWS: i32 = 10_000;
/// Retention is looked at every so many rounds.
const RETAIN_ROUNDS: u32 = 20;

/// Runs for ever. `retention_days`: whole chunks older than this are removed; `None` keeps everything.
pub async fn run(history: History, identity: Identity, retention_days: Option<i32>) {
    let mut round = 0_u32;
    loop {
        match history.pool().get().await {
            Ok(mut client) => {
                if let Some(days) = retention_days.filter(|_| round.is_multiple_of(RETAIN_ROUNDS)) {
                    retain(&mut client, days).await;
                }
                if round.is_multiple_of(RETAIN_ROUNDS) {
                    apply_rules(&mut client).await;
                }
                if let Err(error) = prepare(&client).await {
                    let reason = told(&error);
                    tracing::warn!(reason, "a chunk could not be made ahead: trying again");
                }
                if let Err(error) = refresh(&client, &identity).await {
                    tracing::debug!(%error, "upkeep is tried again in a moment");
                }
            }
            Err(error) => tracing::debug!(%error, "upkeep is tried again in a moment"),
        }
        round = round.wrapping_add(1);
        pause(ROUND_INTERVAL).await;
    }
}

/// Chunk by chunk, so that what was removed stays so and its locks are let go.
async fn retain(client: &mut Object, days: i32) {
    let mut chunks = 0_u32;
    let outcome = loop {
        match retain_oldest(client, days).await {
            Ok(true) => chunks = chunks.saturating_add(1),
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if chunks > 0 {
        tracing::info!(chunks, "retention removed old events");
    }
    if let Err(error) = outcome {
        let reason = told(&error);
        tracing::warn!(
            reason,
            "retention has not removed all that is old: trying again"
        );
    }
}

/// What tenants' rules keep no longer.
async fn apply_rules(client: &mut Object) {
    let mut removed = Removed::default();
    let outcome = retaining::apply(client, &mut removed).await;
    let Removed {
        chunks,
        events,
        failures,
    } = removed;
    if chunks > 0 || events > 0 {
        tracing::info!(chunks, events, "tenants' retention removed old events");
    }
    let reason = match outcome {
        Err(error) => told(&error),
        Ok(()) if failures > 0 => {
            "batches failed or had to wait: the database's log says whose".to_owned()
        }
        Ok(()) => return,
    };
    tracing::warn!(
        reason,
        failures,
        "tenants' retention has not removed all that is old: trying again"
    );
}

async fn retain_oldest(client: &mut Object, days: i32) -> Result<bool, Error> {
    // Whatever the database's default: it has to see what was committed while it waited.
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    let row = transaction.query_one(RETAIN_OLDEST, &[&days]).await?;
    transaction.commit().await?;
    row.try_get(0)
}

async fn prepare(client: &Object) -> Result<(), Error> {
    client.execute(PREPARE_CHUNKS, &[]).await?;
    Ok(())
}

async fn refresh(client: &Object, identity: &Identity) -> Result<(), Error> {
    identity.refresh(client).await?;
    loop {
        let expired: i32 = client
            .query_one(EXPIRE_KEYS, &[&EXPIRE_ROWS])
            .await?
            .try_get(0)?;
        if expired < EXPIRE_ROWS {
            return Ok(());
        }
    }
}
