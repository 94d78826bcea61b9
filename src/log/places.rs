//! Whose turn it is to ask the log over the pool: readers of history, and administrators.
//!
//! # Invariants
//! - What administrators ask has connections of its own beside those of readers: neither takes another's.
//! - Tenants take turns: whoever comes first of a tenant waits for one of each other tenant at most, however many these ask.
//! - Of administrators so many of a tenant wait at most, and each for a bounded time.

use std::sync::Arc;

use super::error::{ReadError, Unavailable};
use super::loan::Loan;
use super::read::{History, Page, Query};
use crate::event::Tenant;
use crate::event::limits::{
    ADMINISTRATION_BRIEF, ADMINISTRATION_LONG, ADMINISTRATION_TURN_MAX, ADMINISTRATION_WAITING_MAX,
    HISTORY_READS,
};
use crate::fair::{Fair, NoPermit, Permit};

/// Connections of those who take turns: each turn has one.
pub(super) const PLACES: usize = HISTORY_READS + ADMINISTRATION_LONG + ADMINISTRATION_BRIEF;

/// See the module. Clones share the places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// For readers.
    reads: Arc<Fair>,
    /// For what goes through many events.
    long: Arc<Fair>,
    /// For what reads or writes a few rows.
    brief: Arc<Fair>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            reads: Fair::new(HISTORY_READS),
            long: Fair::new(ADMINISTRATION_LONG),
            brief: Fair::new(ADMINISTRATION_BRIEF),
        }
    }

    /// Who waits for a turn, of all kinds.
    pub(super) fn waiting(&self) -> usize {
        [&self.reads, &self.long, &self.brief]
            .iter()
            .fold(0, |sum, places| sum.saturating_add(places.waiting()))
    }
}

impl History {
    /// Readers that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.places.reads.waiting()
    }

    /// A reader's turn, waited for as long as it takes, and a connection.
    ///
    /// # Errors
    /// If there is no connection in time.
    pub(super) async fn reading(&self, tenant: &Tenant) -> Result<Loan, ReadError> {
        let turn = self.places.reads.acquire(tenant).await;
        self.lend(turn.ok_or(Unavailable::Silent)?).await
    }

    /// An administrator's turn and a connection for what takes long.
    ///
    /// # Errors
    /// If too many of the tenant wait, or the others take too long.
    pub(super) async fn at_length(&self, tenant: &Tenant) -> Result<Loan, ReadError> {
        let turn = turn(&self.places.long, tenant).await?;
        self.lend(turn).await
    }

    /// An administrator's turn and a connection for what is soon done.
    ///
    /// # Errors
    /// As [`History::at_length`].
    pub(super) async fn briefly(&self, tenant: &Tenant) -> Result<Loan, ReadError> {
        let turn = turn(&self.places.brief, tenant).await?;
        self.lend(turn).await
    }

    /// As [`History::page`], for administrators: in their turn.
    ///
    /// # Errors
    /// As [`History::page`], and if too many of the tenant wait.
    pub async fn page_in_turn(&self, query: &Query) -> Result<Page, ReadError> {
        let client = self.at_length(&query.tenant).await?;
        self.page_over(client, query).await
    }
}

async fn turn(places: &Arc<Fair>, tenant: &Tenant) -> Result<Permit, ReadError> {
    let turn = places.acquire_soon(tenant, ADMINISTRATION_WAITING_MAX, ADMINISTRATION_TURN_MAX);
    turn.await.map_err(|why| match why {
        NoPermit::Crowded => ReadError::Crowded,
        NoPermit::Late => Unavailable::Silent.into(),
    })
}
