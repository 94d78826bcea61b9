//! How a change of the schema waits for others: briefly, again and again, and not for ever.
//!
//! Whoever waits for a lock on the log holds up everybody who comes after it. So an attempt gives up soon, and a pause
//! lets the others pass before the next.
//!
//! # Invariants
//! - No attempt waits for one lock longer than [`LOCK_TIMEOUT_LONG_MS`].

use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::schema::SchemaError;
use crate::tasks::pause;

/// How long an attempt waits for a lock.
const LOCK_TIMEOUT_MS: u64 = 500;
/// How long every fourth does: PostgreSQL ends an autovacuum that is in the way after `deadlock_timeout`, a second.
const LOCK_TIMEOUT_LONG_MS: u64 = 1_500;
const LONG_EVERY: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Who holds a lock on `$1`, a relation of the schema (on any of them without), for longer than an attempt takes; with
/// `$2` those who only read it as well.
const IN_THE_WAY: &str = "
    SELECT l.pid, a.application_name, coalesce(a.state, a.backend_type),
           min(floor(extract(epoch FROM clock_timestamp() - a.xact_start)))::bigint
      FROM pg_locks AS l
      LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
       AND ($2 OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
       AND l.relation IN (
           SELECT c.oid FROM pg_class AS c
            WHERE c.relnamespace = to_regnamespace('tidewire') AND c.relname = coalesce($1, c.relname)
           UNION ALL
           SELECT i.inhrelid FROM pg_inherits AS i
            WHERE i.inhparent = to_regclass('tidewire.events') AND coalesce($1, 'events') = 'events')
       AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => $3), true)
     GROUP BY l.pid, a.application_name, a.state, a.backend_type
     ORDER BY 4 DESC NULLS LAST LIMIT 5";

/// What a change needs to itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// The relation; any of the schema without.
    pub(super) relation: Option<&'static str>,
    /// Whether those who only read it are in the way.
    pub(super) from_readers: bool,
}

impl Needs {
    /// Nothing that could be said beforehand.
    pub(super) const ANY: Self = Self {
        relation: None,
        from_readers: true,
    };
}

/// The attempts at bringing one database up.
#[derive(Debug)]
pub(super) struct Attempts {
    patience: Duration,
    /// What of it is left. Only waiting counts: a migration may take long by itself.
    left: Duration,
    count: u32,
    pause: Duration,
}

impl Attempts {
    /// Attempts that wait for so long in all.
    pub(super) fn within(patience: Duration) -> Self {
        Self {
            patience,
            left: patience,
            count: 0,
            pause: PAUSE_MIN,
        }
    }

    /// How long the next attempt waits for a lock, in milliseconds.
    pub(super) const fn lock_timeout_ms(&self) -> u64 {
        if self.count % LONG_EVERY == LONG_EVERY - 1 {
            LOCK_TIMEOUT_LONG_MS
        } else {
            LOCK_TIMEOUT_MS
        }
    }

    /// After an attempt at `what` failed: pauses before the next, if a lock was missing and there is time.
    pub(super) async fn again(
        &mut self,
        client: &Client,
        what: &str,
        needs: Needs,
        error: SchemaError,
    ) -> Result<(), SchemaError> {
        if !lacks_a_lock(&error) {
            return Err(error);
        }
        let in_the_way = in_the_way(client, needs).await?;
        let cost = Duration::from_millis(self.lock_timeout_ms()).saturating_add(self.pause);
        let Some(left) = self.left.checked_sub(cost) else {
            return Err(SchemaError::InTheWay {
                what: what.to_owned(),
                in_the_way,
                waited_s: self.patience.as_secs(),
            });
        };
        self.left = left;
        tracing::warn!(
            what,
            in_the_way,
            "a change of the schema waits for other transactions: trying again"
        );
        pause(self.pause).await;
        self.count = self.count.wrapping_add(1);
        self.pause = self.pause.saturating_mul(2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Whether somebody held a lock for too long.
pub(super) fn lacks_a_lock(error: &SchemaError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(error) = one.downcast_ref::<tokio_postgres::Error>() {
            return matches!(
                error.code(),
                Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED)
            );
        }
        cause = one.source();
    }
    false
}

/// Who holds what a change needs, for a log line.
async fn in_the_way(client: &Client, needs: Needs) -> Result<String, tokio_postgres::Error> {
    let longer_than = Duration::from_millis(LOCK_TIMEOUT_MS).as_secs_f64();
    let holders = client
        .query(
            IN_THE_WAY,
            &[&needs.relation, &needs.from_readers, &longer_than],
        )
        .await?;
    let mut text = String::new();
    for holder in holders {
        let (pid, application): (Option<i32>, Option<String>) =
            (holder.try_get(0)?, holder.try_get(1)?);
        let (state, open_s): (Option<String>, Option<i64>) =
            (holder.try_get(2)?, holder.try_get(3)?);
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = match pid {
            Some(pid) => write!(
                text,
                "{separator}process {pid} ({}, {}{})",
                application
                    .filter(|name| !name.is_empty())
                    .as_deref()
                    .unwrap_or("without a name"),
                state.as_deref().unwrap_or("of another role"),
                open_s.map(|s| format!(" for {s} s")).unwrap_or_default()
            ),
            None => write!(
                text,
                "{separator}a prepared transaction (see pg_prepared_xacts)"
            ),
        };
    }
    if text.is_empty() {
        text.push_str("a transaction that has just ended");
    }
    Ok(text)
}
