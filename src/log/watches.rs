//! What tenants expect to hear of each subject, and how often: watches, set and removed. `consume/watch` looks after them.
//!
//! # Invariants
//! - Statements name the tenant wherever a caller could name somebody else's row.
//! - A change is in the tenant's log, in the same transaction (`sql/functions/record_watch.sql`), and nobody looks at watches
//!   meanwhile.

use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use serde::Serialize;
use tokio_postgres::{Error, IsolationLevel, Row};

use super::error::ReadError;
use super::read::History;
use crate::event::limits::{DATABASE_SILENCE_MAX, LIST_MAX, WATCHED_MAX, WATCHES_MAX};
use crate::event::{Label, Position, Tenant, TopicPattern};

const LIST: &str = "
    SELECT name, topics, within_s, created_by, created_at, changed_by, changed_at, overflowed_at FROM tidewire.watches
     WHERE tenant = $1 ORDER BY name";
const ONE: &str = "
    SELECT name, topics, within_s, created_by, created_at, changed_by, changed_at, overflowed_at FROM tidewire.watches
     WHERE tenant = $1 AND name = $2";
const COUNT: &str = "
    SELECT count(*), count(*) FILTER (WHERE is_stalled) FROM tidewire.watched WHERE tenant = $1 AND watch = $2";
const STALLED: &str = "
    SELECT subject, last_seen_seq, last_seen_at, since FROM tidewire.watched
     WHERE tenant = $1 AND watch = $2 AND is_stalled AND subject > $3 ORDER BY subject LIMIT $4";
/// Before a row is locked: the same as the trigger's, which holds for whoever changes one in SQL.
const CLAIM: &str = "SELECT pg_advisory_xact_lock(1953064041, 0)";
const SET_WATCH: &str = "
    INSERT INTO tidewire.watches AS w (tenant, name, topics, within_s, created_by, changed_by)
    SELECT $1, $2, $3, $4, $5, $5
     WHERE EXISTS (SELECT FROM tidewire.watches AS o WHERE o.tenant = $1 AND o.name = $2)
        OR (SELECT count(*) FROM tidewire.watches AS o WHERE o.tenant = $1) < $6
        ON CONFLICT (tenant, name) DO UPDATE
        SET topics = excluded.topics, within_s = excluded.within_s, changed_by = excluded.changed_by,
            changed_at = clock_timestamp()
    RETURNING name, topics, within_s, created_by, created_at, changed_by, changed_at, overflowed_at";
/// The setting tells the trigger who did it.
const REMOVE: &str = "
    WITH actor AS MATERIALIZED (SELECT set_config('tidewire.actor', $3, true) AS name)
    DELETE FROM tidewire.watches AS w USING actor AS a
     WHERE w.tenant = $1 AND w.name = $2 AND a.name IS NOT NULL";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[LIST, ONE, COUNT, STALLED, CLAIM, SET_WATCH, REMOVE];

/// A watch.
#[derive(Debug, Clone, Serialize)]
pub struct Watch {
    /// Its name.
    pub name: String,
    /// Which topics are signs of life.
    pub topics: Vec<String>,
    /// How many seconds a subject may give none.
    pub within_s: i32,
    /// Who declared it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who changed it last.
    pub changed_by: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// When a subject first found no place among [`WATCHED_MAX`]: there are some that nobody watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflowed_at: Option<DateTime<Utc>>,
}

/// A subject that has stalled.
#[derive(Debug, Clone)]
pub struct Stalled {
    /// Who.
    pub subject: String,
    /// Its last event.
    pub last: Position,
    /// When that was recorded.
    pub last_seen_at: DateTime<Utc>,
    /// Since when that has been so.
    pub since: DateTime<Utc>,
}

/// There is one of this name, and who asks may not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld;

/// A watch, and who has stalled.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Itself.
    pub watch: Watch,
    /// How many are watched.
    pub subjects: i64,
    /// How many of them have stalled.
    pub stalled_subjects: i64,
    /// [`LIST_MAX`] of these, by name.
    pub stalled: Vec<Stalled>,
    /// There are more.
    pub has_more: bool,
}

impl Shown {
    /// Whether no other subject finds a place.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.subjects >= WATCHED_MAX
    }
}

impl History {
    /// The tenant's watches, by name.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn watches(&self, tenant: &Tenant) -> Result<Vec<Watch>, ReadError> {
        let client = self.briefly(tenant).await?;
        let work = async {
            let rows = client.query(LIST, &[&tenant.as_str()]).await?;
            Ok(rows.iter().map(watch).collect::<Result<_, _>>()?)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// A watch of the tenant, and who has stalled after this name; none if there is none.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn watch(
        &self,
        tenant: &Tenant,
        name: &str,
        after: &str,
    ) -> Result<Option<Shown>, ReadError> {
        let client = self.briefly(tenant).await?;
        let work = async {
            let own: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&tenant.as_str(), &name];
            let Some(row) = client.query_opt(ONE, &own).await? else {
                return Ok(None);
            };
            let counted = client.query_one(COUNT, &own).await?;
            let limit = LIST_MAX.saturating_add(1);
            let rows = client
                .query(STALLED, &[&tenant.as_str(), &name, &after, &limit])
                .await?;
            let mut all: Vec<Stalled> = rows.iter().map(stalled).collect::<Result<_, _>>()?;
            let most = usize::try_from(LIST_MAX).unwrap_or(usize::MAX);
            let has_more = all.len() > most;
            all.truncate(most);
            Ok(Some(Shown {
                watch: watch(&row)?,
                subjects: counted.try_get(0)?,
                stalled_subjects: counted.try_get(1)?,
                stalled: all,
                has_more,
            }))
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Sets a watch; none if the tenant has [`WATCHES_MAX`] others. With other topics it begins anew. `may_change`: of one that there
    /// is, as of the moment in which it is replaced.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn set_watch(
        &self,
        tenant: &Tenant,
        name: &str,
        (topics, within_s): (&[TopicPattern], i32),
        actor: &Label,
        may_change: impl Fn(&Watch) -> bool,
    ) -> Result<Result<Option<Watch>, Withheld>, ReadError> {
        let mut client = self.briefly(tenant).await?;
        let work = async {
            let (tenant, actor) = (tenant.as_str(), actor.as_str());
            let topics: Vec<&str> = topics.iter().map(TopicPattern::as_str).collect();
            let transaction = begin(&mut client).await?;
            if !claim(&transaction, tenant, name, may_change).await? {
                return Ok(Err(Withheld));
            }
            let row = transaction
                .query_opt(
                    SET_WATCH,
                    &[&tenant, &name, &topics, &within_s, &actor, &WATCHES_MAX],
                )
                .await?;
            transaction.commit().await?;
            Ok(Ok(row.as_ref().map(watch).transpose()?))
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Removes a watch of the tenant, and all that is known of its subjects; whether there was one. `may_change`: as of the moment in
    /// which it is removed.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn remove_watch(
        &self,
        tenant: &Tenant,
        name: &str,
        actor: &Label,
        may_change: impl Fn(&Watch) -> bool,
    ) -> Result<Result<bool, Withheld>, ReadError> {
        let mut client = self.briefly(tenant).await?;
        let work = async {
            let (tenant, actor) = (tenant.as_str(), actor.as_str());
            let transaction = begin(&mut client).await?;
            if !claim(&transaction, tenant, name, may_change).await? {
                return Ok(Err(Withheld));
            }
            let removed = transaction
                .execute(REMOVE, &[&tenant, &name, &actor])
                .await?;
            transaction.commit().await?;
            Ok(Ok(removed > 0))
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }
}

/// Nobody else changes a watch until the end of the transaction; whether this one may be.
async fn claim(
    transaction: &Transaction<'_>,
    tenant: &str,
    name: &str,
    may_change: impl Fn(&Watch) -> bool,
) -> Result<bool, Error> {
    transaction.execute(CLAIM, &[]).await?;
    let row = transaction.query_opt(ONE, &[&tenant, &name]).await?;
    let there = row.as_ref().map(watch).transpose()?;
    Ok(there.is_none_or(|watch| may_change(&watch)))
}

fn watch(row: &Row) -> Result<Watch, Error> {
    Ok(Watch {
        name: row.try_get(0)?,
        topics: row.try_get(1)?,
        within_s: row.try_get(2)?,
        created_by: row.try_get(3)?,
        created_at: row.try_get(4)?,
        changed_by: row.try_get(5)?,
        changed_at: row.try_get(6)?,
        overflowed_at: row.try_get(7)?,
    })
}

fn stalled(row: &Row) -> Result<Stalled, Error> {
    let last_seen_at = row.try_get(2)?;
    Ok(Stalled {
        subject: row.try_get(0)?,
        last: Position::new(row.try_get(1)?, last_seen_at),
        last_seen_at,
        since: row.try_get(3)?,
    })
}

/// Whatever the database's default: it has to see what was committed while it waited.
async fn begin(client: &mut Object) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
}
