//! Pages of history, for readers whose place the window no longer holds.
//!
//! # Invariants
//! - Ascending, strictly after the cursor, at most `limit`, never above the watermark that the caller gives.
//! - Bounded by bytes as well: a page ends early rather than grow beyond `PAGE_BYTES_MAX`, but holds one event.
//! - A page says how far it looked, so a filter that matches nothing still moves the cursor.
//! - A cursor that retention has overtaken is an error, also when it happens during the read; never a silent skip.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::{
    HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};

use super::error::{ReadError, Unavailable};
use super::identity::{Identity, Known};
use super::loan::Loan;
use super::places::{PLACES, Places};
use super::rows::Appetite;
use super::span;
use crate::event::limits::{DATABASE_SILENCE_MAX, PAGE_BYTES_MAX, PAGE_EVENTS_MAX, STATEMENT_MAX};
use crate::event::{Event, Filter, Position, Seq, Tenant};
use crate::fair::Permit;
use crate::pg::Connector;

/// The first place among the events recorded within a span.
const FIRST_SINCE: &str = "
    SELECT min(seq) FROM tidewire.events WHERE recorded_at >= $1 AND recorded_at < $2";
const RETAINED: &str = "
    SELECT l.retained_seq, l.retained_at, t.retained_seq, t.retained_at
      FROM tidewire.log AS l LEFT JOIN tidewire.retained_tenants AS t ON t.tenant = $1";

/// The newest event of a tenant after a place that is committed, whether or not readers get that far.
const NEWEST_COMMITTED: &str = "
    SELECT max(seq) FROM tidewire.events WHERE tenant = $1 AND seq > $2 AND recorded_at >= $3";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[FIRST_SINCE, RETAINED, NEWEST_COMMITTED];

/// Each look for a time goes so much further than the one before.
const SPAN_GROWTH: i32 = 8;
/// Events that are looked at to count those of a gap: some 10 ms.
const COUNT_LOOKS_MAX: i64 = 10_000;
/// Each of those who ask has a connection, whatever the others do: whoever has a turn, and upkeep.
const CONNECTIONS_MAX: usize = PLACES + 1;
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
    connector: Connector,
    identity: Identity,
    appetite: Arc<Appetite>,
    pub(super) places: Places,
}

impl History {
    /// A reader that connects when it is first asked.
    ///
    /// # Errors
    /// If the pool cannot be built.
    pub fn new(connector: &Connector, identity: &Identity) -> Result<Self, Unavailable> {
        let manager = Manager::from_config(
            connector.config("history"),
            connector.tls(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(DATABASE_SILENCE_MAX))
            .runtime(Runtime::Tokio1)
            .post_create(deadpool_postgres::Hook::async_fn(|client, _| {
                Box::pin(async move {
                    // As in the tail: the bound on time keeps chunks out of the plan only if it is known to the planner.
                    let settings = format!(
                        "SET statement_timeout = {}; SET plan_cache_mode = force_custom_plan; SET jit = off",
                        STATEMENT_MAX.as_millis()
                    );
                    client
                        .batch_execute(&settings)
                        .await
                        .map_err(HookError::Backend)
                })
            }))
            .build()
            .map_err(|e| Unavailable::Pool(e.to_string()))?;
        Ok(Self {
            pool,
            connector: connector.clone(),
            identity: identity.clone(),
            appetite: Arc::new(Appetite::new(PAGE_EVENTS_MAX)),
            places: Places::new(),
        })
    }

    /// Reads one page, in a turn of its tenant.
    ///
    /// # Errors
    /// If retention has overtaken the cursor, or the database cannot be asked.
    pub async fn page(&self, query: &Query) -> Result<Page, ReadError> {
        let client = self.reading(&query.tenant).await?;
        self.page_over(client, query).await
    }

    /// As [`History::page`], over a connection that was lent for it.
    pub(super) async fn page_over(&self, client: Loan, query: &Query) -> Result<Page, ReadError> {
        let known = self.identity.known();
        let work = async {
            let page = self.parts(&client, query, &known).await?;
            // After the rows: whatever retention took away before they were read, it has recorded by now.
            let statement = client.prepare_cached(RETAINED).await?;
            let row = client
                .query_one(&statement, &[&query.tenant.as_str()])
                .await?;
            let of_log = Position::new(row.try_get(0)?, row.try_get(1)?);
            let own: (Option<Seq>, Option<DateTime<Utc>>) = (row.try_get(2)?, row.try_get(3)?);
            let own = own.0.zip(own.1).map(|(seq, at)| Position::new(seq, at));
            let retained = own.map_or(of_log, |own| own.max(of_log));
            if query.after.seq < retained.seq {
                // Who goes on at the beginning must find it where it is.
                self.identity.begins_at(of_log);
                self.identity.tenant_begins_at(&query.tenant, retained);
                return Err(ReadError::Expired { earliest: retained });
            }
            Ok(page)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Reads a page in as many parts as it takes: how many events to ask for at once depends on what they weigh.
    async fn parts(
        &self,
        client: &Object,
        query: &Query,
        known: &Known,
    ) -> Result<Page, ReadError> {
        let mut page = Page {
            events: Vec::new(),
            through: query.after,
            has_more: true,
        };
        let mut bytes = 0_usize;
        loop {
            let asked = self
                .appetite
                .rows()
                .min(query.limit.saturating_sub(page.events.len()));
            let part = Query {
                after: page.through,
                limit: asked,
                ..query.clone()
            };
            let room = PAGE_BYTES_MAX.saturating_sub(bytes);
            let part = span::read_page(client, &part, known, room).await?;
            let was_filled = part.events.len() >= asked;
            (page.through, page.has_more) = (part.through, part.has_more);
            for event in part.events {
                bytes = bytes.saturating_add(event.json.len());
                if let Some(last) = page.events.last()
                    && bytes > PAGE_BYTES_MAX
                {
                    // As in the window: a page ends before the event that would make it too large.
                    (page.through, page.has_more) = (last.position, true);
                    self.appetite.cut_at(page.events.len());
                    return Ok(page);
                }
                page.events.push(event);
            }
            if was_filled && bytes < PAGE_BYTES_MAX / 2 {
                self.appetite.had_room(asked);
            }
            let is_done = !was_filled || page.events.len() >= query.limit;
            if is_done || bytes >= PAGE_BYTES_MAX || !page.has_more {
                return Ok(page);
            }
        }
    }

    /// How many events match between the query's places, counted in a turn of its tenant; `None` if that takes too long to find out.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn count(&self, query: &Query) -> Result<Option<u64>, ReadError> {
        let client = self.reading(&query.tenant).await?;
        let known = self.identity.known();
        let work = span::count(&client, query, &known, COUNT_LOOKS_MAX);
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// The newest event of the tenant after `after` that is committed by now, whoever wrote it; also one that an open transaction
    /// keeps from readers. In a turn of the tenant.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn newest_committed(
        &self,
        tenant: &Tenant,
        after: Position,
    ) -> Result<Option<Seq>, ReadError> {
        let client = self.reading(tenant).await?;
        let known = self.identity.known();
        let work = async {
            let statement = client.prepare_cached(NEWEST_COMMITTED).await?;
            let disorder_ms = known.disorder_s.saturating_mul(1_000);
            let since = Position {
                at_ms: after.at_ms.saturating_sub(disorder_ms),
                ..after
            }
            .at();
            let row = client
                .query_one(&statement, &[&tenant.as_str(), &after.seq, &since])
                .await?;
            Ok(row.try_get(0)?)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// The position before the first event recorded at `since` or later; `end` if there is none up to it. In a turn of the
    /// tenant.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn position_before(
        &self,
        tenant: &Tenant,
        since: DateTime<Utc>,
        end: Position,
    ) -> Result<Position, ReadError> {
        let client = self.reading(tenant).await?;
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
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// A connection for the time of a turn.
    pub(super) async fn lend(&self, turn: Permit) -> Result<Loan, ReadError> {
        let client = self.pool.get().await;
        let client = client.map_err(|e| Unavailable::Pool(e.to_string()))?;
        Ok(Loan::new(client, turn, &self.connector))
    }

    pub(super) const fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn known(&self) -> Arc<Known> {
        self.identity.known()
    }

    /// The pool, for what else is asked of the log now and then.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }
}
