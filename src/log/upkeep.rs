//! What the log needs now and then: chunks made ahead, old ids forgotten, retention, and noticing that it ran elsewhere.

use std::time::Duration;

use super::identity::Identity;
use super::read::History;
use crate::tasks::pause;

const EXPIRE_KEYS: &str = "SELECT tidewire.expire_keys($1)";
const PREPARE_CHUNKS: &str = "SELECT tidewire.prepare_chunks()";
const RETAIN: &str = "SELECT tidewire.retain(make_interval(days => $1))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[EXPIRE_KEYS, PREPARE_CHUNKS, RETAIN];

const ROUND_INTERVAL: Duration = Duration::from_secs(30);
/// Ids forgotten in one statement.
const EXPIRE_ROWS: i32 = 10_000;
/// Retention is looked at every so many rounds.
const RETAIN_ROUNDS: u32 = 20;

/// Runs for ever. `retention_days`: whole chunks older than this are removed; `None` keeps everything.
pub async fn run(history: History, identity: Identity, retention_days: Option<i32>) {
    let mut round = 0_u32;
    loop {
        if let Err(error) = once(
            &history,
            &identity,
            retention_days.filter(|_| round.is_multiple_of(RETAIN_ROUNDS)),
        )
        .await
        {
            tracing::debug!(%error, "upkeep is tried again in a moment");
        }
        round = round.wrapping_add(1);
        pause(ROUND_INTERVAL).await;
    }
}

async fn once(
    history: &History,
    identity: &Identity,
    retention_days: Option<i32>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = history.pool().get().await?;
    if let Some(days) = retention_days {
        let removed: i32 = client.query_one(RETAIN, &[&days]).await?.try_get(0)?;
        if removed > 0 {
            tracing::info!(chunks = removed, "retention removed old events");
        }
    }
    client.execute(PREPARE_CHUNKS, &[]).await?;
    identity.refresh(&client).await?;
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
