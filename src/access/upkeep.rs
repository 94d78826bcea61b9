//! What the registry needs now and then: when keys were used is written, and what has ended long ago is forgotten.
//!
//! # Invariants
//! - What is forgotten here no server asks about any more: none has to look again.
//! - It goes over the connection for changes and waits for no lock on a row: neither looks nor changes wait for it.
//! - What fails is tried again in a later round.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_postgres::Client;

use super::ledger::{self, LedgerError};
use super::news::{self, Rounds};
use super::registry::Registry;
use super::revocations;
use crate::tasks::pause;

/// This often.
pub(super) const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Batches that are removed in a round at most, of marks, of revocations and of keys each; each is short. The rest goes in the next.
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
            self.forget(&mut rounds).await;
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

    /// Forgets, in the database, what has ended, and marks of changes that every server has seen. What fails keeps nothing else from it.
    async fn forget(&self, rounds: &mut Rounds) {
        let seen = self.0.refreshed.lock().await.seen.clone();
        if let Some(old) = &seen.and_then(|seen| rounds.note(seen)) {
            let marks = |client: Arc<Client>| async move { news::forget(&client, old).await };
            self.in_batches("marks of changes", marks).await;
        }
        let revoked =
            |client: Arc<Client>| async move { revocations::forget_revoked(&client).await };
        self.in_batches("revocations", revoked).await;
        let keys = |client: Arc<Client>| async move { ledger::forget_keys(&client).await };
        self.in_batches("API keys", keys).await;
    }

    /// Removes batches, which say whether there may be more.
    async fn in_batches<F>(&self, what: &'static str, batch: impl Fn(Arc<Client>) -> F)
    where
        F: Future<Output = Result<bool, LedgerError>>,
    {
        for _ in 0..BATCHES_MAX {
            let removed = async {
                let lines = self.0.lines()?;
                let line = &lines.changes;
                line.ask(batch(Arc::clone(line.client()))).await
            };
            match removed.await {
                Ok(true) => pause(BATCH_PAUSE).await,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, what, "credentials that have ended are forgotten later");
                    return;
                }
            }
        }
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
