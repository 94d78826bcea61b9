//! The way of those who are behind: few of them at once, and equal pages are read once.
//!
//! # Invariants
//! - However many are behind, few are handed a page at a time, each in its turn; live readers need no turn, and find a
//!   core that is theirs.
//! - A storm of readers that are behind cannot take more of the database than history has turns (`log/places.rs`); live
//!   readers do not pass here.
//! - Only full pages are kept: they change by erasure alone, after which none of before is found, also not one that was
//!   being read meanwhile. The rest is shared by those who wait for it and then forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use moka::future::Cache;

use super::turn::{Turn, Turns};
use crate::event::limits::PAGE_CACHE_BYTES;
use crate::event::{Filter, Position, Seq, Tenant};
use crate::log::read::Query;
use crate::log::{History, Page, ReadError};

/// Pages are kept this long after they were last asked for.
const IDLE: Duration = Duration::from_secs(20);

/// How long the count of a gap is waited for.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);

/// What makes two pages equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: Tenant,
    filter: Arc<Filter>,
    after: Position,
    limit: usize,
    generation: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Gate {
    history: History,
    /// Pages of an earlier one are not found.
    generation: Arc<AtomicU64>,
    pages: Cache<Key, Arc<Page>>,
    turns: Arc<Turns>,
}

impl Gate {
    /// A gate before `history`, whose turns bound the reads.
    #[must_use]
    pub fn new(history: History) -> Self {
        let weigh = |_: &Key, page: &Arc<Page>| {
            let bytes: usize = page.events.iter().map(|event| event.weight()).sum();
            u32::try_from(bytes.saturating_add(512)).unwrap_or(u32::MAX)
        };
        let pages = Cache::builder()
            .max_capacity(PAGE_CACHE_BYTES)
            .weigher(weigh)
            .time_to_idle(IDLE)
            .build();
        Self {
            history,
            generation: Arc::default(),
            pages,
            turns: Turns::new(),
        }
    }

    /// Readers that wait for a turn or for history.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.turns.waiting().saturating_add(self.history.waiting())
    }

    /// Waits for a turn: tenants take turns, and within one it is first come, first served.
    pub async fn turn(&self, tenant: &Tenant) -> Option<Turn> {
        self.turns.next(tenant).await
    }

    /// The page after `after`, up to `up_to`.
    ///
    /// # Errors
    /// As [`History::page`].
    pub async fn page(
        &self,
        tenant: &Tenant,
        filter: &Arc<Filter>,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Arc<Page>, Arc<ReadError>> {
        let key = Key {
            tenant: tenant.clone(),
            filter: Arc::clone(filter),
            after,
            limit,
            generation: self.generation.load(Ordering::Acquire),
        };
        loop {
            let read = async {
                let query = Query {
                    tenant: tenant.clone(),
                    filter: Filter::clone(filter),
                    after,
                    up_to,
                    limit,
                };
                self.history.page(&query).await.map(Arc::new)
            };
            let page = self.pages.try_get_with(key.clone(), read).await?;
            if page.has_more {
                return Ok(page);
            }
            self.pages.invalidate(&key).await;
            // Else it was another reader's, who began earlier and wanted less.
            if page.through.seq >= up_to.seq {
                return Ok(page);
            }
        }
    }

    /// How many events match between two places, if that can be told soon.
    pub async fn count(
        &self,
        tenant: &Tenant,
        filter: &Arc<Filter>,
        after: Position,
        up_to: Position,
    ) -> Option<u64> {
        let query = Query {
            tenant: tenant.clone(),
            filter: Filter::clone(filter),
            after,
            up_to,
            limit: 0,
        };
        let counting = self.history.count(&query);
        let counted = tokio::time::timeout(COUNT_PATIENCE, counting).await;
        counted.ok()?.ok()?
    }

    /// See [`History::newest_committed`].
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn newest_committed(
        &self,
        tenant: &Tenant,
        after: Position,
    ) -> Result<Option<Seq>, ReadError> {
        self.history.newest_committed(tenant, after).await
    }

    /// See [`History::position_before`].
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn position_before(
        &self,
        tenant: &Tenant,
        since: DateTime<Utc>,
        end: Position,
    ) -> Result<Position, ReadError> {
        self.history.position_before(tenant, since, end).await
    }

    /// Forgets all pages, those that are being read included: the log was cut, or events were erased.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.pages.invalidate_all();
    }
}
