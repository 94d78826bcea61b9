//! What the registry needs now and then: when keys were used is written, and what has ended long ago is forgotten.
//!
//! # Invariants
//! - What is forgotten here no server asks about any more: none has to look again.
//! - It goes over the connection for changes and waits for no lock on a row: neither looks nor changes wait for it.
//! - What fails is tried again in a later round.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::ledger::{self, LedgerError};
use super::news::{self, Rounds};
use super::registry::Registry;
use super::revocations;
use crate::tasks::pause;

/// This often.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Batches of keys that are forgotten in a round; each is short.
const BATCHES_MAX: usize = 100;
/// Keys whose use is written in one statement.
const USES_PER_WRITE: usize = 1_000;
/// Between two batches.
const BATCH_PAUSE: Duration = Duration::from_millis(50);

impl Registry {
    /// Does all of it now and then, for ever.
    pub(super) async fn keep_up(&self) {
        let mut rounds = Rounds::default();
        loop {
            self.write_used().await;
            self.let_go();
            let forgotten = async {
                self.forget_marks(&mut rounds).await?;
                self.forget_revoked().await?;
                self.forget_keys().await
            };
            if let Err(error) = forgotten.await {
                tracing::debug!(%error, "credentials that have ended are forgotten later");
            }
            pause(UPKEEP_INTERVAL).await;
        }
    }

    /// Forgets revocations that have ended, here; a tenant's at a time, for which others wait.
    fn let_go(&self) {
        let tenants = self.0.revoked.read();
        let tenants = tenants.unwrap_or_else(PoisonError::into_inner).tenants();
        let now = SystemTime::now().into();
        for tenant in tenants {
            let all = self.0.revoked.write();
            let mut all = all.unwrap_or_else(PoisonError::into_inner);
            all.forget_ended(&tenant, now);
        }
    }

    /// Forgets revocations that have ended, in the database.
    async fn forget_revoked(&self) -> Result<(), LedgerError> {
        for _ in 0..BATCHES_MAX {
            let lines = self.0.lines()?;
            let line = &lines.changes;
            if !line.ask(revocations::forget_revoked(line.client())).await? {
                break;
            }
            pause(BATCH_PAUSE).await;
        }
        Ok(())
    }

    /// Forgets marks of changes that every server has seen.
    async fn forget_marks(&self, rounds: &mut Rounds) -> Result<(), LedgerError> {
        let seen = self.0.refreshed.lock().await.seen.clone();
        let Some(old) = seen.and_then(|seen| rounds.note(seen)) else {
            return Ok(());
        };
        for _ in 0..BATCHES_MAX {
            let lines = self.0.lines()?;
            let line = &lines.changes;
            if !line.ask(news::forget(line.client(), &old)).await? {
                break;
            }
            pause(BATCH_PAUSE).await;
        }
        Ok(())
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
        // What is open uses its key, however long ago it was opened.
        for id in self.leases().keys() {
            self.uses().note(&id);
        }
        let mut uses = self.uses().take().into_iter();
        loop {
            let some: HashMap<_, _> = uses.by_ref().take(USES_PER_WRITE).collect();
            if some.is_empty() {
                return;
            }
            let written = async {
                let lines = self.0.lines()?;
                let line = &lines.changes;
                line.ask(ledger::used(line.client(), &some)).await
            };
            match written.await {
                Ok(left) => self.uses().put_back(left),
                Err(error) => {
                    tracing::warn!(%error, "when API keys were used could not be written");
                    self.uses().put_back(some.into_iter().chain(uses).collect());
                    return;
                }
            }
        }
    }
}
