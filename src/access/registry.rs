//! What the database knows, as of a moment ago: API keys, tokens that were revoked, settings of tenants (`in_force`).
//!
//! # Invariants
//! - A revocation anywhere ends what is open here within a second: by NOTIFY, and by a look every half second, which also
//!   finds out whether the line is still there.
//! - A key that was looked up while it was being revoked does not stay known: it is remembered only if nothing that is remembered has
//!   changed since it was asked for.
//! - The database's outage locks out nobody who is known. Keys that are not known are refused for as long as it lasts.
//! - What takes long, or may wait for a lock, goes over a connection of its own: a look waits for nobody (`lines`, `looks`).
//! - Whoever guesses keys waits in line with other guessers: a few are looked up at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{Mutex, Notify, Semaphore};

use super::api_key::{ApiKey, KeyId, KnownKey};
use super::changes::Changes;
use super::jwt::Denied;
use super::lease::{Leases, has_passed};
use super::ledger::{self, LedgerError};
use super::lines::{ANSWER_TIMEOUT, Lines};
use super::looks::{Cause, Looked, Refreshed};
use super::principal::{Credential, Principal};
use super::refresh::still_grants;
use super::remembered::Remembered;
use super::revoked::Revoked;
use super::uses::Uses;
use crate::backoff::Backoff;
use crate::event::limits::{
    CREDENTIAL_LISTS_MAX, KEY_LOOKUPS_MAX, KEYS_KNOWN_MAX, SETTINGS_READS_MAX,
};
use crate::fair::Fair;
use crate::pg::{ConnectError, Connector};
use crate::tasks::{Tasks, pause};

const LISTEN: &str = "LISTEN tidewire_credentials";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[LISTEN];

const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// See the module. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Registry(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    connector: Connector,
    /// Whether a LISTEN on this connection is of use.
    listens: bool,
    lines: RwLock<Option<Arc<Lines>>>,
    opened: AtomicU64,
    /// How often what is remembered of credentials has changed. A key that is looked up meanwhile is not remembered. Held while what is
    /// remembered changes: what is remembered is never older than what has ended leases.
    version: std::sync::Mutex<u64>,
    /// Held while what has changed is being read again, so that nobody takes it for done.
    pub(super) refreshed: Mutex<Refreshed>,
    /// Looks that were asked for.
    pub(super) asked: AtomicU64,
    pub(super) looked: std::sync::Mutex<Looked>,
    pub(super) keys: Cache<KeyId, Arc<KnownKey>>,
    pub(super) revoked: RwLock<Revoked>,
    leases: Leases,
    lookups: Semaphore,
    /// Places of administrators who read.
    administration: Arc<Fair>,
    pub(super) changes: Changes,
    uses: Uses,
    pub(super) settings: Remembered,
    pub(super) settings_reads: Arc<Semaphore>,
    /// Something may have changed.
    pub(super) wake: Arc<Notify>,
}

/// The registry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The credentials cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Inner {
    pub(super) fn version(&self) -> MutexGuard<'_, u64> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lines(&self) -> Result<Arc<Lines>, LedgerError> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let is_open = |lines: &Arc<Lines>| !lines.looks.client().is_closed();
        lines
            .clone()
            .filter(is_open)
            .ok_or(LedgerError::Unavailable)
    }
}

impl Registry {
    /// Reads what there is, and goes on looking until the tasks stop. `listens`: whether NOTIFY comes through.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn start(
        connector: Connector,
        listens: bool,
        tasks: &Tasks,
    ) -> Result<Self, RegistryError> {
        let registry = Self(Arc::new(Inner {
            connector,
            listens,
            lines: RwLock::default(),
            opened: AtomicU64::new(0),
            version: std::sync::Mutex::default(),
            refreshed: Mutex::default(),
            asked: AtomicU64::new(0),
            looked: std::sync::Mutex::default(),
            keys: Cache::new(KEYS_KNOWN_MAX),
            revoked: RwLock::default(),
            leases: Leases::default(),
            lookups: Semaphore::new(KEY_LOOKUPS_MAX),
            administration: Fair::new(CREDENTIAL_LISTS_MAX),
            changes: Changes::default(),
            uses: Uses::default(),
            settings: Remembered::default(),
            settings_reads: Arc::new(Semaphore::new(SETTINGS_READS_MAX)),
            wake: Arc::default(),
        }));
        let client = Box::pin(registry.open()).await?;
        let running = registry.clone();
        tasks.spawn_until_stop(async move { running.run(client).await });
        let kept_up = registry.clone();
        tasks.spawn_until_stop(async move { kept_up.keep_up().await });
        Ok(registry)
    }

    /// Who holds this key.
    ///
    /// # Errors
    /// If it is not known, has ended, or cannot be looked up now.
    pub(super) async fn identify(&self, key: &ApiKey) -> Result<Principal, Denied> {
        let known = self.find(&key.id).await?;
        let known = known.filter(|known| known.is(key)).ok_or(Denied::Invalid)?;
        let principal = known.principal();
        check(&known)?;
        self.0.uses.note(&key.id);
        Ok(principal)
    }

    /// Whether the holder's credential still counts.
    ///
    /// # Errors
    /// If it was revoked, has expired or grants something else.
    pub(super) async fn check(&self, holder: &Principal) -> Result<(), Denied> {
        match &holder.credential {
            Credential::ApiKey { id, .. } => {
                let known = self.find(id).await?.ok_or(Denied::Ended)?;
                check(&known)?;
                let is_same = still_grants(Some(&known), holder);
                is_same.then_some(()).ok_or(Denied::Ended)
            }
            Credential::Token { .. } if self.is_revoked(holder) => Err(Denied::Revoked),
            Credential::Token { .. } | Credential::None => Ok(()),
        }
    }

    /// Those who must go when their credential does.
    pub(super) fn leases(&self) -> &Leases {
        &self.0.leases
    }

    pub(super) fn uses(&self) -> &Uses {
        &self.0.uses
    }

    pub(super) fn administration(&self) -> &Arc<Fair> {
        &self.0.administration
    }

    /// Whether the holder's token was revoked.
    pub(super) fn is_revoked(&self, holder: &Principal) -> bool {
        let revoked = self.0.revoked.read();
        revoked
            .unwrap_or_else(PoisonError::into_inner)
            .covers(holder)
    }

    fn set_lines(&self, lines: Option<Arc<Lines>>) {
        *self.0.lines.write().unwrap_or_else(PoisonError::into_inner) = lines;
    }

    /// The key as it is known, or as the database has it.
    async fn find(&self, id: &KeyId) -> Result<Option<Arc<KnownKey>>, Denied> {
        if let Some(known) = self.0.keys.get(id) {
            return Ok(Some(known));
        }
        let looked_up = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let _turn = self.0.lookups.acquire().await;
            self.look_up(id).await
        });
        match looked_up.await {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an API key could not be looked up");
                Err(Denied::Unavailable)
            }
            Err(_) => Err(Denied::Unavailable),
        }
    }

    async fn look_up(&self, id: &KeyId) -> Result<Option<Arc<KnownKey>>, LedgerError> {
        loop {
            if let Some(known) = self.0.keys.get(id) {
                return Ok(Some(known));
            }
            let before = *self.0.version();
            let lines = self.0.lines()?;
            let mut found = ledger::keys(lines.looks.client(), &[id.as_str()]).await?;
            lines.looks.note_answer();
            let Some(known) = found.pop().map(Arc::new) else {
                return Ok(None);
            };
            let version = self.0.version();
            if *version == before {
                self.0.keys.insert(id.clone(), Arc::clone(&known));
                return Ok(Some(known));
            }
        }
    }

    /// Connections, with everything read anew.
    async fn open(&self) -> Result<Arc<Lines>, RegistryError> {
        let wake = Arc::clone(&self.0.wake);
        let connector = &self.0.connector;
        let looks = connector.connect_listening("credentials", move || wake.notify_one());
        let settings = connector.connect("settings");
        let changes = connector.connect("changes");
        let number = self.0.opened.fetch_add(1, Ordering::Relaxed);
        let lines = Arc::new(Lines::new(
            looks.await?,
            settings.await?,
            changes.await?,
            number,
        ));
        let prepared = async {
            if self.0.listens {
                lines.looks.client().batch_execute(LISTEN).await?;
            }
            lines.bound().await
        };
        lines.looks.ask(prepared).await?;
        // Whatever was read before the connection was lost.
        self.look_anew(&lines.looks).await?;
        self.set_lines(Some(Arc::clone(&lines)));
        // After that: what is read from now on is read over these.
        lines.looks.ask(self.compare_settings(&lines.looks)).await?;
        self.note_look(None);
        Ok(lines)
    }

    async fn run(&self, mut lines: Arc<Lines>) {
        loop {
            if let Err(error) = self.watch(&lines).await {
                tracing::warn!(%error, "credentials cannot be looked up: those that are known stay in force");
            }
            self.set_lines(None);
            let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
            lines = loop {
                pause(backoff.next_delay()).await;
                match self.open().await {
                    Ok(lines) => break lines,
                    Err(error) => {
                        tracing::debug!(%error, "no connection for credentials");
                        self.note_look(Some(match &error {
                            RegistryError::Connect(_) => Cause::NoConnection,
                            RegistryError::Ledger(error) => Cause::of(error),
                        }));
                    }
                }
            };
        }
    }
}

fn check(known: &KnownKey) -> Result<(), Denied> {
    if known.is_revoked {
        Err(Denied::Revoked)
    } else if known.grant.expires_at.is_some_and(has_passed) {
        Err(Denied::Expired)
    } else {
        Ok(())
    }
}
