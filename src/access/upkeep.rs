//! What the registry needs now and then: when keys were used is written, and revocations that have ended are forgotten.
//!
//! # Invariants
//! - What is forgotten here no server asks about any more: none has to look again.
//! - What fails is tried again in a later round.

use super::lines::in_time;
use super::registry::Registry;
use super::{ledger, revocations};

impl Registry {
    /// Forgets some revocations that have ended; done now and then.
    pub(super) async fn forget_revoked(&self) {
        let forgotten =
            in_time(async { revocations::forget_revoked(&*self.client()?).await }).await;
        if let Err(error) = forgotten {
            tracing::debug!(%error, "revocations that have ended are forgotten later");
        }
    }

    /// Writes when keys were used; done now and then, and once more before a server stops.
    pub async fn write_used(&self) {
        let uses = self.uses().take();
        if uses.is_empty() {
            return;
        }
        let written = in_time(async { ledger::used(&*self.client()?, &uses).await }).await;
        if let Err(error) = written {
            tracing::warn!(%error, "when API keys were used could not be written");
            self.uses().put_back(uses);
        }
    }
}
