//! Where the log ends for whoever counts: nothing that was acknowledged before the question lies beyond.
//!
//! # Invariants
//! - Asked of the database, since other servers and applications write as well; never further than readers get.
//! - Too little is no answer: where an open transaction keeps committed events from readers for too long, that is said.

use std::time::Duration;

use super::Hub;
use super::error::FollowError;
use super::follow::AHEAD_PATIENCE;
use crate::event::limits::AUDIT_WAIT_MAX;
use crate::event::{Position, Tenant};
use crate::log::ReadError;

/// Why there is no end.
#[derive(Debug, thiserror::Error)]
pub enum NoEnd {
    /// An open transaction that wrote events keeps some that are committed from readers.
    #[error("an open transaction holds back events that are committed")]
    Held,
    /// As the log says.
    #[error(transparent)]
    Read(#[from] FollowError),
}

impl Hub {
    /// A place up to which all can be read that was committed of the tenant before this.
    ///
    /// # Errors
    /// If that place is not reached within [`AUDIT_WAIT_MAX`], or the database cannot be asked.
    pub async fn committed_end(&self, tenant: &Tenant) -> Result<Position, NoEnd> {
        let newest = self.newest_committed(tenant).await?;
        if let Some(seq) = newest {
            self.reach(seq, AUDIT_WAIT_MAX).await?;
        }
        Ok(self.head())
    }

    /// Waits until `place` can be read.
    ///
    /// # Errors
    /// If the log has not come that far, or it is not reached within [`AUDIT_WAIT_MAX`].
    pub async fn reach_place(&self, place: Position) -> Result<(), NoEnd> {
        self.is_given(place).await?;
        self.reach(place.seq, AUDIT_WAIT_MAX).await
    }

    /// That the log has come as far as `place`.
    ///
    /// # Errors
    /// If it has not.
    pub async fn is_given(&self, place: Position) -> Result<(), NoEnd> {
        let is_known = place.seq <= self.tail().watermark.newest
            || self.wait_for_newest(place.seq, AHEAD_PATIENCE).await;
        if is_known {
            Ok(())
        } else {
            Err(FollowError::from(ReadError::Ahead).into())
        }
    }

    async fn newest_committed(&self, tenant: &Tenant) -> Result<Option<i64>, FollowError> {
        let head = self.head();
        Ok(self.history()?.newest_committed(tenant, head).await?)
    }

    async fn reach(&self, seq: i64, patience: Duration) -> Result<(), NoEnd> {
        if self.head().seq >= seq || self.wait_for(seq, patience).await {
            Ok(())
        } else {
            Err(NoEnd::Held)
        }
    }
}
