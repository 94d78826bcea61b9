//! What the registry needs now and then: when keys were used is written, and what has ended long ago is forgotten.
//!
//! # Invariants
//! - What is forgotten here no server asks about any more: none has to look again.
//! - It goes over the connection for changes and waits for no lock on a row: neither looks nor changes wait for it.
//! - What fails is tried again in a later round.

use std::time::Duration;

use super::ledger::{self, LedgerError};
use super::registry::Registry;
use super::revocations;
use crate::tasks::pause;

/// This often.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Batches of keys that are forgotten in a round; each is short.
const BATCHES_MAX: usize = 100;
/// Between two batches.
const BATCH_PAUSE: Duration = Duration::from_millis(50);

impl Registry {
    /// Does all of it now and then, for ever.
    pub(super) async fn keep_up(&self) {
        loop {
            self.write_used().await;
            let forgotten = async {
                self.forget_revoked().await?;
                self.forget_keys().await
            };
            if let Err(error) = forgotten.await {
                tracing::debug!(%error, "credentials that have ended are forgotten later");
            }
            pause(UPKEEP_INTERVAL).await;
        }
    }

    /// Forgets some revocations that have ended.
    async fn forget_revoked(&self) -> Result<(), LedgerError> {
        let lines = self.0.lines()?;
        let line = &lines.changes;
        line.ask(revocations::forget_revoked(line.client())).await
    }

    /// Forgets API keys that ended long ago.
    async fn forget_keys(&self) -> Result<(), LedgerError> {
        for _ in 0..BATCHES_MAX {
            let lines = self.0.lines()?;
            let line = &lines.changes;
            if !line.ask(ledger::forget_keys(line.client())).await? {
                break;
            }
            pause(BATCH_PAUSE).await;
        }
        Ok(())
    }

    /// Writes when keys were used; done now and then, and once more before a server stops.
    pub async fn write_used(&self) {
        let uses = self.uses().take();
        if uses.is_empty() {
            return;
        }
        let written = async {
            let lines = self.0.lines()?;
            let line = &lines.changes;
            line.ask(ledger::used(line.client(), &uses)).await
        };
        match written.await {
            Ok(left) => self.uses().put_back(left),
            Err(error) => {
                tracing::warn!(%error, "when API keys were used could not be written");
                self.uses().put_back(uses);
            }
        }
    }
}
