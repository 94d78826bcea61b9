//! What is held of a subject.
//!
//! # Invariants
//! - Pages ascend and are bounded, as those of history are; who asked stands in the log before anything is answered.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::{Error, Row};

use super::error::ReadError;
use super::read::{History, Page};
use super::row::{self, event_columns};
use super::rows;
use crate::event::limits::{DATABASE_SILENCE_MAX, PAGE_BYTES_MAX};
use crate::event::{Label, Position, Seq, Tenant};

const RECORD_READ: &str = "SELECT tidewire.record_subject_read($1, $2, $3)";
/// How many there are, as far as they are counted, and when the first and the last of these were recorded.
const SUMMARY: &str = "
    SELECT count(*), min(e.recorded_at), max(e.recorded_at)
      FROM (SELECT recorded_at FROM tidewire.events WHERE tenant = $1 AND subject = $2 ORDER BY seq LIMIT $3) AS e";
/// The tenant's events after a place that this source produced, of `$5` that are looked at.
const PRODUCED: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM (
        SELECT * FROM tidewire.events WHERE tenant = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $5) AS e
      WHERE e.source = $4 AND e.subject IS DISTINCT FROM $4 ORDER BY e.seq LIMIT $6"
);
/// The last of those that were looked at, if there may be more.
const LOOKED_TO: &str = "
    SELECT seq, recorded_at FROM tidewire.events WHERE tenant = $1 AND seq > $2 AND seq <= $3
     ORDER BY seq OFFSET $4 LIMIT 1";

/// By the watches, which are few: of their subjects there may be many.
const WATCHED: &str = "
    SELECT o.watch, o.last_seen_seq, o.last_seen_at, o.is_stalled, o.since
      FROM tidewire.watches AS w
      JOIN tidewire.watched AS o ON o.tenant = $1 AND o.watch = w.name AND o.subject = $2
     WHERE w.tenant = $1 ORDER BY o.watch";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[RECORD_READ, SUMMARY, PRODUCED, LOOKED_TO, WATCHED];

/// Events that are counted.
const COUNT_MAX: i64 = 100_000;
/// Events of the tenant that are looked at for a page of those that a source produced.
const LOOKS_MAX: i64 = 20_000;

/// What is held of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Events; none if there are more than 100,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// When the first was recorded.
    #[serde(rename = "first_recorded_at", skip_serializing_if = "Option::is_none")]
    pub first_at: Option<DateTime<Utc>>,
    /// When the last that was counted was recorded.
    #[serde(rename = "last_recorded_at", skip_serializing_if = "Option::is_none")]
    pub last_at: Option<DateTime<Utc>>,
}

/// What a watch knows of a subject.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Which watch.
    pub watch: String,
    /// The subject's last event.
    pub last: Position,
    /// When that was recorded.
    pub last_seen_at: DateTime<Utc>,
    /// Whether it is silent for longer than it may be.
    pub is_stalled: bool,
    /// Since when that is so, or is not.
    pub since: DateTime<Utc>,
}

impl History {
    /// What the tenant's watches know of a subject.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn watched(
        &self,
        tenant: &Tenant,
        subject: &Label,
    ) -> Result<Vec<Watched>, ReadError> {
        let client = self.at_length(tenant).await?;
        let work = async {
            let (tenant, subject) = (tenant.as_str(), subject.as_str());
            let rows = client.query(WATCHED, &[&tenant, &subject]).await?;
            Ok(rows.iter().map(watched).collect::<Result<_, _>>()?)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Writes down who asks, and counts what is held.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn summary(
        &self,
        tenant: &Tenant,
        subject: &Label,
        actor: &Label,
    ) -> Result<Summary, ReadError> {
        let client = self.at_length(tenant).await?;
        let work = async {
            let (tenant, subject) = (tenant.as_str(), subject.as_str());
            client
                .execute(RECORD_READ, &[&tenant, &subject, &actor.as_str()])
                .await?;
            let row = client
                .query_one(SUMMARY, &[&tenant, &subject, &COUNT_MAX.saturating_add(1)])
                .await?;
            let count: i64 = row.try_get(0)?;
            Ok(Summary {
                events: (count <= COUNT_MAX)
                    .then(|| u64::try_from(count).ok())
                    .flatten(),
                first_at: row.try_get(1)?,
                last_at: row.try_get(2)?,
            })
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Events that a source produced about others than itself, after a place and up to another. All of the tenant's events are
    /// looked through, so a page may be empty and have more.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn produced(
        &self,
        tenant: &Tenant,
        source: &Label,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let client = self.at_length(tenant).await?;
        let known = self.known();
        let limit_rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let work = async {
            let (tenant, source) = (tenant.as_str(), source.as_str());
            let statement = client.prepare_cached(PRODUCED).await?;
            let read = rows::read(
                &client,
                &statement,
                &[
                    &tenant,
                    &after.seq,
                    &up_to.seq,
                    &source,
                    &LOOKS_MAX,
                    &limit_rows,
                ],
                PAGE_BYTES_MAX,
            )
            .await?;
            let mut events = Vec::with_capacity(read.rows.len());
            for row in &read.rows {
                events.push(Arc::new(row::event(row, &known.identity)?));
            }
            let last = events.last().map(|event| event.position);
            if let Some(through) = last.filter(|_| read.was_cut || events.len() >= limit) {
                let page = Page {
                    events,
                    through,
                    has_more: true,
                };
                return Ok((page, read.was_cut));
            }
            let looked = LOOKS_MAX.saturating_sub(1);
            let row = client
                .query_opt(LOOKED_TO, &[&tenant, &after.seq, &up_to.seq, &looked])
                .await?;
            let looked_to = match &row {
                Some(row) => {
                    let seq: Seq = row.try_get(0)?;
                    Some(Position::new(seq, row.try_get(1)?))
                }
                None => None,
            };
            let page = Page {
                events,
                through: looked_to.unwrap_or(up_to),
                has_more: looked_to.is_some(),
            };
            Ok((page, false))
        };
        match tokio::time::timeout(DATABASE_SILENCE_MAX, work).await {
            Ok(Ok((page, true))) => {
                // The rest, up to hundreds of megabytes, is still on its way: given up, as what nobody waits for.
                drop(client);
                Ok(page)
            }
            answered => client.settle(answered.map(|outcome| outcome.map(|(page, _)| page))),
        }
    }
}

fn watched(row: &Row) -> Result<Watched, Error> {
    let last_seen_at = row.try_get(2)?;
    Ok(Watched {
        watch: row.try_get(0)?,
        last: Position::new(row.try_get(1)?, last_seen_at),
        last_seen_at,
        is_stalled: row.try_get(3)?,
        since: row.try_get(4)?,
    })
}
