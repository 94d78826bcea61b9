//! Settings of tenants that are in force here, as of a moment ago.
//!
//! # Invariants
//! - As with credentials: a change anywhere is seen within a second, by NOTIFY and by a look every half second.
//! - A change is read by who asks for that tenant's settings, and costs no other tenant a look at its own.
//! - Settings that cannot be read stop their own tenant's writes only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::ledger::LedgerError;
use super::lines::{Line, Lines};
use super::registry::Registry;
use super::remembered::{Known, Unread};
use super::settings::Settings;
use super::tenants;
use crate::event::Tenant;
use crate::tasks::compute;

/// Settings that have not been read within this time, others before them included, are not waited for.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Tenants whose changes are asked for in one statement.
const TENANTS_PER_READ: usize = 1_000;

impl Registry {
    /// What the tenant has decided. Who asks while it is being read waits for the same answer.
    pub(super) async fn settings(&self, tenant: &Tenant) -> Result<Arc<Settings>, LedgerError> {
        let (inner, name) = (Arc::downgrade(&self.0), tenant.clone());
        let known = self.0.settings.get(tenant, move |before| async move {
            let asked = inner.upgrade();
            let asked = asked.map(|inner| (inner.lines(), Arc::clone(&inner.settings_reads)));
            let (lines, reads) = asked.ok_or(Unread)?;
            let reading = read(lines, &reads, &name, before);
            let read = tokio::time::timeout(READ_TIMEOUT, reading).await;
            let read = read.unwrap_or(Err(LedgerError::Unavailable));
            read.map(Arc::new).map_err(|error| {
                tracing::warn!(%error, "the settings of a tenant cannot be read");
                Unread
            })
        });
        let known = known.await.map_err(|Unread| LedgerError::Unavailable)?;
        let settings = known.settings.clone();
        settings.ok_or_else(|| LedgerError::Unreadable(tenant.clone()))
    }

    /// Finds out whose settings have changed while nobody looked.
    pub(super) async fn compare_settings(&self, line: &Line) -> Result<(), LedgerError> {
        let settings = &self.0.settings;
        for tenants in settings.tenants().chunks(TENANTS_PER_READ) {
            let names: Vec<&str> = tenants.iter().map(Tenant::as_str).collect();
            let changes = tenants::changes(line.client(), &names).await?;
            line.note_answer();
            for (tenant, mark) in changes {
                settings.announce(&tenant, mark).await;
            }
        }
        Ok(())
    }
}

async fn read(
    lines: Result<Arc<Lines>, LedgerError>,
    reads: &Semaphore,
    tenant: &Tenant,
    before: Option<Arc<Known>>,
) -> Result<Known, LedgerError> {
    let lines = lines?;
    let _turn = reads.acquire().await;
    // Another connection may lead to another database, where a row's name means another.
    let before = before.filter(|before| before.connection == lines.number);
    let known: HashMap<_, _> = before.map(|before| before.rows.clone()).unwrap_or_default();
    let line = &lines.settings;
    let stored = line.ask(tenants::stored(line.client(), tenant, &known));
    let stored = stored.await?;
    let number = lines.number;
    if stored.is_costly() {
        let made = compute(move || stored.ready(&known, number)).await;
        made.ok_or(LedgerError::Unavailable)
    } else {
        Ok(stored.ready(&known, number))
    }
}
