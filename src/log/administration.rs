//! The places of administrators among those who ask the log.
//!
//! # Invariants
//! - What administrators ask has connections of its own beside those of readers: neither takes another's.
//! - Tenants take turns: whoever comes first of a tenant waits for one of each other tenant at most, however many these ask.
//! - So many of a tenant wait at most, and each for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;

use super::error::{ReadError, Unavailable};
use super::read::{History, Page, Query};
use crate::event::Tenant;
use crate::event::limits::{ADMINISTRATION_BRIEF, ADMINISTRATION_LONG, ADMINISTRATION_WAITING_MAX};
use crate::fair::{Fair, NoPermit, Permit};

/// How long a turn is waited for.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// See the module. Clones share the places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// For what goes through many events.
    long: Arc<Fair>,
    /// For what reads or writes a few rows.
    brief: Arc<Fair>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            long: Fair::new(ADMINISTRATION_LONG),
            brief: Fair::new(ADMINISTRATION_BRIEF),
        }
    }
}

impl History {
    /// A turn and a connection for what takes long.
    ///
    /// # Errors
    /// If too many of the tenant wait, or the others take too long.
    pub(super) async fn at_length(&self, tenant: &Tenant) -> Result<(Permit, Object), ReadError> {
        let turn = turn(&self.places.long, tenant).await?;
        Ok((turn, self.client().await?))
    }

    /// A turn and a connection for what is soon done.
    ///
    /// # Errors
    /// As [`History::at_length`].
    pub(super) async fn briefly(&self, tenant: &Tenant) -> Result<(Permit, Object), ReadError> {
        let turn = turn(&self.places.brief, tenant).await?;
        Ok((turn, self.client().await?))
    }

    /// As [`History::page`], for administrators: in their turn.
    ///
    /// # Errors
    /// As [`History::page`], and if too many of the tenant wait.
    pub async fn page_in_turn(&self, query: &Query) -> Result<Page, ReadError> {
        let _turn = turn(&self.places.long, &query.tenant).await?;
        self.page(query).await
    }
}

async fn turn(places: &Arc<Fair>, tenant: &Tenant) -> Result<Permit, ReadError> {
    let turn = places.acquire_soon(tenant, ADMINISTRATION_WAITING_MAX, TURN_WAIT);
    turn.await.map_err(|why| match why {
        NoPermit::Crowded => ReadError::Crowded,
        NoPermit::Late => Unavailable::Silent.into(),
    })
}
