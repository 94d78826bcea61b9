//! Whose change is made next.
//!
//! # Invariants
//! - One change of a tenant's settings at a time, and one of its credentials: what is held up holds up nobody but its tenant, and
//!   no revocation waits for settings.
//! - One statement at a time on the connection, of which tenants take turns. It waits there for a lock no longer than a moment; the
//!   rest of the time it waits elsewhere, and others have their turns.
//! - Whoever gives up leaves one statement behind at most: each is prepared first, which is answered after all that was sent before.
//! - No attempt is begun for a credential whose end is in force here, and what a change ends has ended before the tenant's next change
//!   is begun, if who asked for it waits that long. An attempt that was begun before may still be made: it waits for a lock no longer than a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::jwt::Denied;
use super::lease::Lease;
use super::ledger::LedgerError;
use super::registry::Registry;
use crate::event::Tenant;
use crate::event::limits::{ADMINISTRATION_WAITING_MAX, CREDENTIALS_TURN_MAX};
use crate::fair::{Fair, NoPermit, Permit};
use crate::tasks::pause;

/// How long a change that is held up is tried again.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Rests between attempts: each twice as long as the one before.
const REST_MIN: Duration = Duration::from_millis(25);
const REST_MAX: Duration = Duration::from_millis(400);
/// How long an attempt that was begun before the credential's end is waited for after it: who has ended its own is answered.
const LAST_ATTEMPT_MAX: Duration = Duration::from_millis(500);

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// API keys and revocations.
    Credentials,
    /// Settings and declared topics.
    Settings,
}

/// Turns of changes.
#[derive(Debug)]
pub(super) struct Changes {
    credentials: Own,
    settings: Own,
    /// The connection's one place.
    line: Arc<Fair>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            credentials: Own::default(),
            settings: Own::default(),
            line: Fair::new(1),
        }
    }
}

impl Changes {
    /// The tenant's own place.
    async fn place(&self, of: Of, tenant: &Tenant) -> Result<Permit, LedgerError> {
        let own = match of {
            Of::Credentials => &self.credentials,
            Of::Settings => &self.settings,
        };
        soon(&own.of(tenant), tenant).await
    }
}

/// Waits for a place, as long as an administrator does.
pub(super) async fn soon(places: &Arc<Fair>, tenant: &Tenant) -> Result<Permit, LedgerError> {
    let permit = places.acquire_soon(tenant, ADMINISTRATION_WAITING_MAX, CREDENTIALS_TURN_MAX);
    permit.await.map_err(|why| match why {
        NoPermit::Crowded => LedgerError::Crowded,
        NoPermit::Late => LedgerError::Unavailable,
    })
}

/// A place for each tenant that changes something.
#[derive(Debug, Default)]
struct Own(Mutex<HashMap<Tenant, Weak<Fair>>>);

impl Own {
    fn of(&self, tenant: &Tenant) -> Arc<Fair> {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = own.get(tenant).and_then(Weak::upgrade) {
            return place;
        }
        // As many are kept as were in use at once.
        if own.len() == own.capacity() {
            own.retain(|_, place| place.strong_count() > 0);
        }
        let place = Fair::new(1);
        own.insert(tenant.clone(), Arc::downgrade(&place));
        place
    }
}

impl Registry {
    /// Changes something of the tenant, by one statement that is sent again if another transaction is in its way; for as long as the
    /// lease lasts.
    ///
    /// # Errors
    /// [`LedgerError::HeldUp`] if one is for too long, [`LedgerError::Crowded`] if too many of the tenant wait,
    /// [`LedgerError::Unavailable`] if its turn does not come or there is no answer, [`LedgerError::Ended`] if the credential ends before;
    /// else as what is asked.
    pub(super) async fn change<T, F>(
        &self,
        of: Of,
        (tenant, lease): (&Tenant, &Lease),
        ask: impl Fn(Arc<Client>) -> F,
    ) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let _place = lease.run(self.0.changes.place(of, tenant)).await??;
        self.attempt((tenant, lease), ask).await
    }

    /// The same, and what it ends has ended here when it returns, before the tenant's next change is begun.
    ///
    /// # Errors
    /// As [`Registry::change`], and if what has changed cannot be read.
    pub(super) async fn change_at_once<T, F>(
        &self,
        of: Of,
        (tenant, lease): (&Tenant, &Lease),
        ask: impl Fn(Arc<Client>) -> F,
    ) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let _place = lease.run(self.0.changes.place(of, tenant)).await??;
        let changed = self.attempt((tenant, lease), ask).await?;
        // Whatever becomes of who asked: it may have ended its own credential.
        self.look_now().await?;
        Ok(changed)
    }

    async fn attempt<T, F>(
        &self,
        (tenant, lease): (&Tenant, &Lease),
        ask: impl Fn(Arc<Client>) -> F,
    ) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let began = Instant::now();
        let mut rest = REST_MIN;
        loop {
            let turn = lease.run(soon(&self.0.changes.line, tenant)).await??;
            let lines = self.0.lines()?;
            let line = &lines.changes;
            lease.check()?;
            let answer = tokio::select! {
                biased;
                answer = line.ask(ask(Arc::clone(line.client()))) => answer,
                why = long_ended(lease) => Err(why.into()),
            };
            drop(turn);
            if !matches!(answer, Err(LedgerError::HeldUp)) || began.elapsed() >= PATIENCE {
                return answer;
            }
            lease.run(pause(rest)).await?;
            rest = rest.saturating_mul(2).min(REST_MAX);
        }
    }
}

/// Waits until the credential has ended, and as long as an attempt may take after it.
async fn long_ended(lease: &Lease) -> Denied {
    let why = lease.ended().await;
    pause(LAST_ATTEMPT_MAX).await;
    why
}
