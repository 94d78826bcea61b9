//! Who wrote of whom, and when: what consumers ask of the log that need not know what was said.
//!
//! # Invariants
//! - A page ascends, strictly after a place, never above the watermark, and is bounded by events that are looked at.
//! - Of tenants that nobody asks for nothing comes back but the place.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Transaction;

use super::error::Unavailable;
use crate::event::{Position, Seq};

/// Places for all, and who and what for those that are asked for.
const PAGE: &str = "
    SELECT e.seq, e.recorded_at, a.tenant, a.topic, a.subject
      FROM tidewire.events AS e
      LEFT JOIN LATERAL (SELECT e.tenant, e.topic, e.subject WHERE e.tenant = ANY ($5) AND e.subject IS NOT NULL) AS a ON true
     WHERE e.seq > $1 AND e.seq <= $2 AND e.recorded_at >= $3 ORDER BY e.seq LIMIT $4";
/// The last event of a subject that is committed, above the watermark or not.
const NEWEST: &str = "
    SELECT c.nth, max(e.recorded_at)
      FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS c(tenant, subject, topics, after, nth)
      JOIN tidewire.events AS e ON e.tenant = c.tenant AND e.subject = c.subject AND e.seq > c.after AND e.recorded_at >= $5
       AND e.topic ~ c.topics AND NOT starts_with(e.topic, 'tidewire.') AND e.topic <> ALL ($6)
     GROUP BY c.nth";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[PAGE, NEWEST];

/// Events of a page: some 20 ms.
pub const PAGE_MAX: usize = 5_000;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Strictly after this.
    pub after: Position,
    /// What follows may be dated so many seconds earlier.
    pub disorder_s: i64,
    /// Up to this.
    pub watermark: Seq,
    /// Who is asked for.
    pub tenants: &'a [String],
}

/// An event's place, and of whom it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its place.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// None where nobody asks for it, or it speaks of nobody.
    pub of: Option<Of>,
}

/// Of whom an event speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    /// Whose event it is.
    pub tenant: String,
    /// What it is.
    pub topic: String,
    /// About whom.
    pub subject: String,
}

/// A subject whose newest event is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose event it is.
    pub tenant: String,
    /// About whom.
    pub subject: String,
    /// Of which topics, as a regular expression.
    pub topics: String,
    /// Strictly after this.
    pub after: Seq,
}

/// A page, [`PAGE_MAX`] events at most: less is all there is.
///
/// # Errors
/// If the database cannot be asked.
pub async fn page(
    transaction: &Transaction<'_>,
    asked: &Asked<'_>,
) -> Result<Vec<Fact>, Unavailable> {
    let since = earlier(asked.after.at(), asked.disorder_s);
    let limit = i64::try_from(PAGE_MAX).unwrap_or(i64::MAX);
    let rows = transaction
        .query(
            PAGE,
            &[
                &asked.after.seq,
                &asked.watermark,
                &since,
                &limit,
                &asked.tenants,
            ],
        )
        .await?;
    let fact = |row: &tokio_postgres::Row| {
        let tenant: Option<String> = row.try_get(2)?;
        let of = match tenant {
            Some(tenant) => Some(Of {
                tenant,
                topic: row.try_get(3)?,
                subject: row.try_get(4)?,
            }),
            None => None,
        };
        Ok(Fact {
            seq: row.try_get(0)?,
            recorded_at: row.try_get(1)?,
            of,
        })
    };
    rows.iter().map(fact).collect()
}

/// When the last event of each was recorded that is committed now, in the order of `wanted`; none where there is none.
///
/// # Errors
/// If the database cannot be asked.
pub async fn newest(
    transaction: &Transaction<'_>,
    wanted: &[Wanted],
    since: DateTime<Utc>,
    not: &[&str],
) -> Result<Vec<Option<DateTime<Utc>>>, Unavailable> {
    let text = |of: fn(&Wanted) -> &str| wanted.iter().map(of).collect::<Vec<&str>>();
    let after: Vec<Seq> = wanted.iter().map(|one| one.after).collect();
    let rows = transaction
        .query(
            NEWEST,
            &[
                &text(|one| &one.tenant),
                &text(|one| &one.subject),
                &text(|one| &one.topics),
                &after,
                &since,
                &not,
            ],
        )
        .await?;
    let mut found = vec![None; wanted.len()];
    for row in rows {
        let nth: i64 = row.try_get(0)?;
        let at = usize::try_from(nth).ok().and_then(|nth| nth.checked_sub(1));
        if let Some(place) = at.and_then(|at| found.get_mut(at)) {
            *place = row.try_get(1)?;
        }
    }
    Ok(found)
}

/// So many seconds earlier.
#[must_use]
pub fn earlier(at: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    let by = TimeDelta::try_seconds(seconds).unwrap_or_default();
    at.checked_sub_signed(by).unwrap_or(at)
}
