//! Pages of history, for readers whose place the window no longer holds.
//!
//! # Invariants
//! - Ascending, strictly after the cursor, at most `limit`, never above the watermark that the caller gives.
//! - A page says how far it looked, so a filter that matches nothing still moves the cursor.
//! - A cursor that retention has overtaken is an error, also when it happens during the read; never a silent skip.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::{HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

use super::error::{ReadError, Unavailable};
use super::identity::{Identity, Known};
use super::row::{self, event_columns};
use crate::event::limits::{DATABASE_SILENCE_MAX, HISTORY_READS, PAGE_SCAN_MAX};
use crate::event::{Event, Filter, Label, Position, Seq, Tenant};
use crate::pg::Connector;

/// The tenant's events after a place, looked at one by one until enough match or `$8` were looked at.
const PAGE: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM (
        SELECT * FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5
         ORDER BY seq LIMIT $8) AS e
      WHERE e.topic = ANY ($6) OR e.topic ~ ANY ($7)
      ORDER BY e.seq LIMIT $9"
);
/// The same for chosen subjects, by their own index.
const PAGE_OF_SUBJECTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM (
        SELECT * FROM tidewire.events
         WHERE tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at >= $4 AND recorded_at < $5
           AND subject = ANY ($10)
         ORDER BY seq LIMIT $8) AS e
      WHERE e.topic = ANY ($6) OR e.topic ~ ANY ($7)
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
/// The first place among the events recorded within a span.
const FIRST_SINCE: &str = "
    SELECT min(seq) FROM tidewire.events WHERE recorded_at >= $1 AND recorded_at < $2";
const RETAINED: &str = "SELECT retained_seq, retained_at FROM tidewire.log";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    PAGE,
    PAGE_OF_SUBJECTS,
    SCANNED_TO,
    SUBJECTS_SCANNED_TO,
    FIRST_SINCE,
    RETAINED,
];

/// Time after the cursor that a read looks at first; it grows until something is found.
const SPAN_MIN: TimeDelta = TimeDelta::days(1);
const SPAN_GROWTH: i32 = 8;
/// How long a read may wait for a free connection.
const POOL_WAIT: Duration = Duration::from_secs(10);

/// Events after a place.
#[derive(Debug, Clone)]
pub struct Page {
    /// Ascending.
    pub events: Vec<Arc<Event>>,
    /// Everything that matches up to here is in this page or before it.
    pub through: Position,
    /// Whether there may be more up to the watermark.
    pub has_more: bool,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Whose events.
    pub tenant: Tenant,
    /// Which of them.
    pub filter: Filter,
    /// Strictly after this.
    pub after: Position,
    /// Up to this, the watermark.
    pub up_to: Position,
    /// At most so many.
    pub limit: usize,
}

/// Reads history over a few connections of its own.
#[derive(Debug, Clone)]
pub struct History {
    pool: Pool,
    identity: Identity,
}

impl History {
    /// A reader that connects when it is first asked.
    ///
    /// # Errors
    /// If the pool cannot be built.
    pub fn new(connector: &Connector, identity: &Identity) -> Result<Self, Unavailable> {
        let manager = Manager::from_config(
            connector.config("history"),
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(HISTORY_READS)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(DATABASE_SILENCE_MAX))
            .runtime(Runtime::Tokio1)
            .post_create(deadpool_postgres::Hook::async_fn(|client, _| {
                Box::pin(async move {
                    // As in the tail: the bound on time keeps chunks out of the plan only if it is known to the planner.
                    client
                        .batch_execute("SET plan_cache_mode = force_custom_plan; SET jit = off")
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|e| Unavailable::Pool(e.to_string()))?;
        Ok(Self {
            pool,
            identity: identity.clone(),
        })
    }

    /// Reads one page.
    ///
    /// # Errors
    /// If retention has overtaken the cursor, or the database cannot be asked.
    pub async fn page(&self, query: &Query) -> Result<Page, ReadError> {
        let client = self.client().await?;
        let known = self.identity.known();
        let work = async {
            let page = read_page(&client, query, &known).await?;
            // After the rows: whatever retention took away before they were read, it has recorded by now.
            let row = client.query_one(RETAINED, &[]).await?;
            let retained = Position::new(row.try_get(0)?, row.try_get(1)?);
            if query.after.seq < retained.seq {
                return Err(ReadError::Expired { earliest: retained });
            }
            Ok(page)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        if answered.is_err() {
            // A silent connection is not given back to the pool.
            let _ = deadpool_postgres::Object::take(client);
            return Err(Unavailable::Silent.into());
        }
        answered.unwrap_or(Err(Unavailable::Silent.into()))
    }

    /// The position before the first event recorded at `since` or later; `end` if there is none up to it.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn position_before(
        &self,
        since: DateTime<Utc>,
        end: Position,
    ) -> Result<Position, ReadError> {
        let client = self.client().await?;
        let work = async {
            let statement = client.prepare_cached(FIRST_SINCE).await?;
            let mut span = TimeDelta::minutes(10);
            let mut from = since.max(DateTime::UNIX_EPOCH);
            loop {
                let to = from
                    .checked_add_signed(span)
                    .unwrap_or(DateTime::<Utc>::MAX_UTC);
                let row = client.query_one(&statement, &[&from, &to]).await?;
                let first: Option<Seq> = row.try_get(0)?;
                match first {
                    Some(first) if first > end.seq => return Ok(end),
                    Some(first) => {
                        return Ok(Position {
                            seq: first.saturating_sub(1),
                            at_ms: from.timestamp_millis(),
                        });
                    }
                    None if from > end.at() => return Ok(end),
                    None => {}
                }
                from = to;
                span = span.checked_mul(SPAN_GROWTH).unwrap_or(TimeDelta::MAX);
            }
        };
        tokio::time::timeout(DATABASE_SILENCE_MAX, work)
            .await
            .map_err(|_| Unavailable::Silent)?
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, ReadError> {
        self.pool
            .get()
            .await
            .map_err(|e| ReadError::Unavailable(Unavailable::Pool(e.to_string())))
    }

    /// The pool, for what else is asked of the log now and then.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }
}

async fn read_page(
    client: &deadpool_postgres::Object,
    query: &Query,
    known: &Known,
) -> Result<Page, ReadError> {
    let disorder = TimeDelta::seconds(known.disorder_s);
    let from = query
        .after
        .at()
        .checked_sub_signed(disorder)
        .unwrap_or(DateTime::UNIX_EPOCH);
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
        if let Some(page) = read_span(client, query, known, &span_read).await? {
            return Ok(page);
        }
        span = span.checked_mul(SPAN_GROWTH).unwrap_or(TimeDelta::MAX);
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
    subjects: Vec<&'a str>,
    looks_max: i64,
    last_looked_at: i64,
    limit: i64,
}

impl<'a> Params<'a> {
    fn of(query: &'a Query) -> Self {
        let (exact, wild): (Vec<_>, Vec<_>) = query
            .filter
            .topics()
            .iter()
            .partition(|p| p.as_exact().is_some());
        let looks_max = i64::try_from(PAGE_SCAN_MAX).unwrap_or(i64::MAX);
        Self {
            tenant: query.tenant.as_str(),
            exact: exact.iter().map(|p| p.as_str()).collect(),
            wild: wild.iter().map(|p| p.to_regex()).collect(),
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
) -> Result<Option<Page>, ReadError> {
    let params = Params::of(query);
    let rows = matching_rows(client, query, &params, span).await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        if !span.is_sure(row.try_get(1)?) {
            break;
        }
        events.push(Arc::new(row::event(row, &known.identity)?));
    }
    let was_cut = events.len() < rows.len();
    if let Some(last) = events.last().map(|event| event.position)
        && (was_cut || events.len() >= query.limit)
    {
        return Ok(Some(Page {
            events,
            through: last,
            has_more: true,
        }));
    }
    if was_cut {
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
) -> Result<Vec<tokio_postgres::Row>, ReadError> {
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
    ];
    let mut statement = PAGE;
    if !params.subjects.is_empty() {
        statement = PAGE_OF_SUBJECTS;
        values.push(&params.subjects);
    }
    let statement = client.prepare_cached(statement).await?;
    Ok(client.query(&statement, &values).await?)
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
