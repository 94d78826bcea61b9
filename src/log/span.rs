//! Reads a page by looking at spans of time, so that of a long history few chunks are touched.
//!
//! # Invariants
//! - `recorded_at` may stand out of the order of places by `disorder_max` at most (`sql/functions/claim_floor.sql`): a
//!   span is read that much earlier than its cursor, and what lies that close to its end is left for the next.
//! - A look at events that do not match stops at a bound, and says how far it came.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::types::ToSql;

use super::error::ReadError;
use super::identity::Known;
use super::read::{Page, Query};
use super::row::{self, event_columns};
use super::rows::{self, Portion};
use crate::event::limits::PAGE_SCAN_MAX;
use crate::event::{Label, Position};

/// The tenant's events after a place, looked at one by one until enough match or `$8` were looked at.
const PAGE: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM (
        SELECT * FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5
         ORDER BY seq LIMIT $8) AS e
      WHERE e.topic = ANY ($6) OR e.topic ~ ANY ($10) OR e.topic ~ ANY ($7) AND NOT starts_with(e.topic, 'tidewire.')
      ORDER BY e.seq LIMIT $9"
);
/// The same for chosen subjects, by their own index.
const PAGE_OF_SUBJECTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM (
        SELECT * FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5
           AND subject = ANY ($11)
         ORDER BY seq LIMIT $8) AS e
      WHERE e.topic = ANY ($6) OR e.topic ~ ANY ($10) OR e.topic ~ ANY ($7) AND NOT starts_with(e.topic, 'tidewire.')
      ORDER BY e.seq LIMIT $9"
);
/// The last of the rows that PAGE looked at, if it stopped at its bound.
const SCANNED_TO: &str = "
    SELECT seq, recorded_at FROM tidewire.events
     WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5
     ORDER BY seq OFFSET $6 LIMIT 1";
const SUBJECTS_SCANNED_TO: &str = "
    SELECT seq, recorded_at FROM tidewire.events
     WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5 AND subject = ANY ($7)
     ORDER BY seq OFFSET $6 LIMIT 1";

/// How many match of those after a place, and how many were looked at: `$7` at most.
const COUNT: &str = "
    SELECT count(*) FILTER (WHERE e.topic = ANY ($5) OR e.topic ~ ANY ($8)
                OR e.topic ~ ANY ($6) AND NOT starts_with(e.topic, 'tidewire.')), count(*) FROM (
        SELECT topic FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4
         ORDER BY seq LIMIT $7) AS e";
const COUNT_OF_SUBJECTS: &str = "
    SELECT count(*) FILTER (WHERE e.topic = ANY ($5) OR e.topic ~ ANY ($8)
                OR e.topic ~ ANY ($6) AND NOT starts_with(e.topic, 'tidewire.')), count(*) FROM (
        SELECT topic FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND subject = ANY ($9)
         ORDER BY seq LIMIT $7) AS e";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    PAGE,
    PAGE_OF_SUBJECTS,
    SCANNED_TO,
    SUBJECTS_SCANNED_TO,
    COUNT,
    COUNT_OF_SUBJECTS,
];

/// Time after the cursor that a read looks at first; it grows until something is found.
const SPAN_MIN: TimeDelta = TimeDelta::days(1);
const SPAN_GROWTH: i32 = 8;

/// Reads a page of history over `client`, which ends early where the events weigh `bytes_max`.
///
/// # Errors
/// If the database cannot be asked.
pub(super) async fn read_page(
    client: &deadpool_postgres::Object,
    query: &Query,
    known: &Known,
    bytes_max: usize,
) -> Result<Page, ReadError> {
    let disorder = TimeDelta::seconds(known.disorder_s);
    let from = query.from(known);
    let newest = query
        .up_to
        .at()
        .checked_add_signed(disorder)
        .unwrap_or(DateTime::<Utc>::MAX_UTC);
    let mut span = SPAN_MIN;
    loop {
        let to = query
            .after
            .at()
            .checked_add_signed(disorder + span)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        let is_last = to > newest;
        // Events recorded after `to` may have a place before those recorded shortly before `to`, but not before
        // those that are older than the disorder.
        let sure_until = if is_last {
            None
        } else {
            to.checked_sub_signed(disorder)
        };
        let span_read = Span {
            from,
            to: if is_last {
                DateTime::<Utc>::MAX_UTC
            } else {
                to
            },
            sure_until,
        };
        if let Some(page) = read_span(client, query, known, &span_read, bytes_max).await? {
            return Ok(page);
        }
        span = span.checked_mul(SPAN_GROWTH).unwrap_or(TimeDelta::MAX);
    }
}

/// How many events match between the query's places; `None` if more than `looks_max` have to be looked at.
///
/// # Errors
/// If the database cannot be asked.
pub(super) async fn count(
    client: &deadpool_postgres::Object,
    query: &Query,
    known: &Known,
    looks_max: i64,
) -> Result<Option<u64>, ReadError> {
    let params = Params::of(query);
    let from = query.from(known);
    let one_more = looks_max.saturating_add(1);
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![
        &params.tenant,
        &query.after.seq,
        &query.up_to.seq,
        &from,
        &params.exact,
        &params.wild,
        &one_more,
        &params.own,
    ];
    let mut statement = COUNT;
    if !params.subjects.is_empty() {
        statement = COUNT_OF_SUBJECTS;
        values.push(&params.subjects);
    }
    let statement = client.prepare_cached(statement).await?;
    let row = client.query_one(&statement, &values).await?;
    let (matching, looked_at): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok((looked_at <= looks_max)
        .then(|| u64::try_from(matching).ok())
        .flatten())
}

impl Query {
    /// What lies after the place was recorded no earlier.
    fn from(&self, known: &Known) -> DateTime<Utc> {
        let disorder = TimeDelta::seconds(known.disorder_s);
        self.after
            .at()
            .checked_sub_signed(disorder)
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}

struct Span {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// None: the span holds all there is.
    sure_until: Option<DateTime<Utc>>,
}

/// The parameters that the statements of this file share.
struct Params<'a> {
    tenant: &'a str,
    exact: Vec<&'a str>,
    wild: Vec<String>,
    /// Of the log's own topics.
    own: Vec<String>,
    subjects: Vec<&'a str>,
    looks_max: i64,
    last_looked_at: i64,
    limit: i64,
}

impl<'a> Params<'a> {
    fn of(query: &'a Query) -> Self {
        let topics = query.filter.topics().iter();
        let (exact, wild): (Vec<_>, Vec<_>) = topics.partition(|p| p.as_exact().is_some());
        let (own, wild): (Vec<_>, Vec<_>) = wild.into_iter().partition(|p| p.is_reserved());
        let looks_max = i64::try_from(PAGE_SCAN_MAX).unwrap_or(i64::MAX);
        Self {
            tenant: query.tenant.as_str(),
            exact: exact.iter().map(|p| p.as_str()).collect(),
            wild: wild.iter().map(|p| p.to_regex()).collect(),
            own: own.iter().map(|p| p.to_regex()).collect(),
            subjects: query.filter.subjects().iter().map(Label::as_str).collect(),
            looks_max,
            last_looked_at: looks_max.saturating_sub(1),
            limit: i64::try_from(query.limit).unwrap_or(i64::MAX),
        }
    }
}

/// Reads within a span of time; `None` if the span is too short to say anything.
async fn read_span(
    client: &deadpool_postgres::Object,
    query: &Query,
    known: &Known,
    span: &Span,
    bytes_max: usize,
) -> Result<Option<Page>, ReadError> {
    let params = Params::of(query);
    let Portion { rows, was_cut, .. } =
        matching_rows(client, query, &params, span, bytes_max).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        if !span.is_sure(row.try_get(1)?) {
            break;
        }
        events.push(Arc::new(row::event(row, &known.identity)?));
    }
    let are_all_sure = events.len() == rows.len();
    if let Some(last) = events.last().map(|event| event.position)
        && (was_cut || !are_all_sure || events.len() >= query.limit)
    {
        return Ok(Some(Page {
            events,
            through: last,
            has_more: true,
        }));
    }
    if !are_all_sure {
        return Ok(None);
    }
    // Fewer than wanted: either all were looked at, or the look stopped at its bound.
    if let Some((through, at)) = looked_to(client, query, &params, span).await? {
        return Ok(span.is_sure(at).then_some(Page {
            events,
            through,
            has_more: true,
        }));
    }
    if span.sure_until.is_none() {
        return Ok(Some(Page {
            events,
            through: query.up_to,
            has_more: false,
        }));
    }
    Ok(events
        .last()
        .map(|event| event.position)
        .map(|through| Page {
            events,
            through,
            has_more: true,
        }))
}

impl Span {
    /// Whether nothing outside the span can have a place before an event recorded at `at`.
    fn is_sure(&self, at: DateTime<Utc>) -> bool {
        self.sure_until.is_none_or(|until| at < until)
    }
}

async fn matching_rows(
    client: &deadpool_postgres::Object,
    query: &Query,
    params: &Params<'_>,
    span: &Span,
    bytes_max: usize,
) -> Result<Portion, ReadError> {
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![
        &params.tenant,
        &query.after.seq,
        &query.up_to.seq,
        &span.from,
        &span.to,
        &params.exact,
        &params.wild,
        &params.looks_max,
        &params.limit,
        &params.own,
    ];
    let mut statement = PAGE;
    if !params.subjects.is_empty() {
        statement = PAGE_OF_SUBJECTS;
        values.push(&params.subjects);
    }
    let statement = client.prepare_cached(statement).await?;
    Ok(rows::read(client, &statement, &values, bytes_max).await?)
}

/// The last event that was looked at, if the look stopped at its bound.
async fn looked_to(
    client: &deadpool_postgres::Object,
    query: &Query,
    params: &Params<'_>,
    span: &Span,
) -> Result<Option<(Position, DateTime<Utc>)>, ReadError> {
    let mut values: Vec<&(dyn ToSql + Sync)> = vec![
        &params.tenant,
        &query.after.seq,
        &query.up_to.seq,
        &span.from,
        &span.to,
        &params.last_looked_at,
    ];
    let mut statement = SCANNED_TO;
    if !params.subjects.is_empty() {
        statement = SUBJECTS_SCANNED_TO;
        values.push(&params.subjects);
    }
    let statement = client.prepare_cached(statement).await?;
    let Some(row) = client.query_opt(&statement, &values).await? else {
        return Ok(None);
    };
    let at = row.try_get(1)?;
    Ok(Some((Position::new(row.try_get(0)?, at), at)))
}
