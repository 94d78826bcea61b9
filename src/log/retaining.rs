//! How long tenants keep their topics: the rules, and their application.
//!
//! # Invariants
//! - Statements name the tenant wherever a caller could name somebody else's row.
//! - One tenant's rules, however many, however often changed, and if they fail, keep no other's from being applied: see
//!   `sql/functions/apply_retention.sql`. There also the batch of a rule that took too long gets smaller, and grows again: it is
//!   known by rule, so that neither the others' turns nor another server begin with what was too much.
//! - What somebody keeps from being applied who is not at that work is a failure, never done.
//! - Where all of the oldest chunk is beyond the rules, the chunk goes; else its events are emptied in their places, a
//!   bounded batch a transaction. Readers are told of either: by "expired", or by what stands in the place.

use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use serde::Serialize;
use tokio_postgres::{Error, IsolationLevel, Row};

use super::error::ReadError;
use super::read::History;
use crate::event::limits::{DATABASE_SILENCE_MAX, RULES_MAX};
use crate::event::{Label, Tenant, TopicPattern};

const LIST: &str = "
    SELECT pattern, days, changed_by, changed_at, removed, removed_at FROM tidewire.retention_rules
     WHERE tenant = $1 ORDER BY specificity DESC, pattern";
/// One change of a tenant's rules at a time, before a row is locked: two that changed each other's rules would wait for each other.
const CHANGE: &str = "SELECT pg_advisory_xact_lock(1953064038, hashtext($1))";
const SET_RULE: &str = "
    INSERT INTO tidewire.retention_rules AS r (tenant, pattern, days, changed_by)
    SELECT $1, $2, $3, $4
     WHERE EXISTS (SELECT FROM tidewire.retention_rules AS o WHERE o.tenant = $1 AND o.pattern = $2)
        OR (SELECT count(*) FROM tidewire.retention_rules AS o WHERE o.tenant = $1) < $5
        ON CONFLICT (tenant, pattern) DO UPDATE
        SET days = excluded.days, changed_by = excluded.changed_by, changed_at = clock_timestamp()
    RETURNING pattern, days, changed_by, changed_at, removed, removed_at";
/// The setting tells the trigger who did it.
const REMOVE: &str = "
    WITH actor AS MATERIALIZED (SELECT set_config('tidewire.actor', $3, true) AS name)
    DELETE FROM tidewire.retention_rules AS r USING actor AS a
     WHERE r.tenant = $1 AND r.pattern = $2 AND a.name IS NOT NULL";
/// A chunk's events are read to see whether one is kept: at some 2 million a second from memory, so that this is enough for some
/// 100 million. The reading itself holds up no writer.
const READING_A_CHUNK: &str = "SET LOCAL statement_timeout = '60s'";
const RETAIN_BY_RULES: &str = "SELECT tidewire.retain_by_rules()";
const ROUND: &str = "SELECT clock_timestamp()";
const APPLY: &str = "SELECT removed, is_complete FROM tidewire.apply_retention(round_at => $1)";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    LIST,
    CHANGE,
    SET_RULE,
    REMOVE,
    RETAIN_BY_RULES,
    ROUND,
    APPLY,
];

/// Batches of a round; the rest waits for the next one.
const BATCHES_MAX: u32 = 200;
/// Batches of a round in which a tenant's may fail or have to wait: each may take as long as a statement may.
const FAILURES_MAX: u32 = 3;

/// A rule, and what it has removed.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// Which topics.
    pub pattern: String,
    /// How many days of 24 hours they are kept.
    pub days: i32,
    /// Who set it.
    pub changed_by: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// Events it has removed.
    pub removed: i64,
    /// When it did so last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<DateTime<Utc>>,
}

/// What a round of retention has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Removed {
    pub(super) chunks: u32,
    pub(super) events: i64,
    /// Batches in which a tenant's failed, or had to wait for others: the database's log says whose and why.
    pub(super) failures: u32,
}

impl History {
    /// The tenant's rules, the most exact first.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn rules(&self, tenant: &Tenant) -> Result<Vec<Rule>, ReadError> {
        let client = self.briefly(tenant).await?;
        let work = async {
            let rows = client.query(LIST, &[&tenant.as_str()]).await?;
            Ok(rows.iter().map(rule).collect::<Result<_, _>>()?)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Sets a rule; none if the tenant has [`RULES_MAX`] others.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn set_rule(
        &self,
        tenant: &Tenant,
        pattern: &TopicPattern,
        days: i32,
        actor: &Label,
    ) -> Result<Option<Rule>, ReadError> {
        let mut client = self.briefly(tenant).await?;
        let work = async {
            let (tenant, pattern, actor) = (tenant.as_str(), pattern.as_str(), actor.as_str());
            let transaction = begin(&mut client).await?;
            transaction.execute(CHANGE, &[&tenant]).await?;
            let row = transaction
                .query_opt(SET_RULE, &[&tenant, &pattern, &days, &actor, &RULES_MAX])
                .await?;
            transaction.commit().await?;
            Ok(row.as_ref().map(rule).transpose()?)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Removes a rule of the tenant; whether there was one. What it has removed stays so.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn remove_rule(
        &self,
        tenant: &Tenant,
        pattern: &TopicPattern,
        actor: &Label,
    ) -> Result<bool, ReadError> {
        let mut client = self.briefly(tenant).await?;
        let work = async {
            let params = [tenant.as_str(), pattern.as_str(), actor.as_str()];
            let transaction = begin(&mut client).await?;
            transaction.execute(CHANGE, &[&params[0]]).await?;
            let removed = transaction
                .execute(REMOVE, &[&params[0], &params[1], &params[2]])
                .await?;
            transaction.commit().await?;
            Ok(removed > 0)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }
}

fn rule(row: &Row) -> Result<Rule, Error> {
    Ok(Rule {
        pattern: row.try_get(0)?,
        days: row.try_get(1)?,
        changed_by: row.try_get(2)?,
        changed_at: row.try_get(3)?,
        removed: row.try_get(4)?,
        removed_at: row.try_get(5)?,
    })
}

/// Applies all tenants' rules, as far as a round goes, and counts into `removed`.
///
/// # Errors
/// If somebody is in the way, or the database cannot be asked: what was removed before stays so.
pub(super) async fn apply(client: &mut Object, removed: &mut Removed) -> Result<(), Error> {
    // A chunk that somebody uses is no reason to keep what is in it.
    let chunks = remove_chunks(client, &mut removed.chunks).await;
    let began_at: DateTime<Utc> = client.query_one(ROUND, &[]).await?.try_get(0)?;
    for _ in 0..BATCHES_MAX {
        let transaction = begin(client).await?;
        let row = transaction.query_one(APPLY, &[&began_at]).await?;
        transaction.commit().await?;
        let events: i64 = row.try_get(0)?;
        removed.events = removed.events.saturating_add(events);
        match row.try_get::<_, Option<bool>>(1)? {
            Some(true) => break,
            Some(false) => {}
            // Such a tenant has had its turn: the next batch is another's.
            None => removed.failures = removed.failures.saturating_add(1),
        }
        if removed.failures >= FAILURES_MAX {
            break;
        }
    }
    chunks
}

async fn remove_chunks(client: &mut Object, removed: &mut u32) -> Result<(), Error> {
    loop {
        let transaction = begin(client).await?;
        transaction.batch_execute(READING_A_CHUNK).await?;
        let row = transaction.query_one(RETAIN_BY_RULES, &[]).await?;
        transaction.commit().await?;
        if !row.try_get(0)? {
            return Ok(());
        }
        *removed = removed.saturating_add(1);
    }
}

/// Whatever the database's default: it has to see what was committed while it waited.
async fn begin(client: &mut Object) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
}
