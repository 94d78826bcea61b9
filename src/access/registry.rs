//! Credentials that the database knows, as of a moment ago: API keys, and tokens that were revoked.
//!
//! # Invariants
//! - A revocation anywhere ends what is open here within a second: by NOTIFY, and by a look every half second, which also
//!   finds out whether the line is still there.
//! - A key that was looked up while it was being revoked does not stay known: what is remembered carries the version at
//!   which it was read.
//! - The database's outage locks out nobody who is known. Keys that are not known are refused for as long as it lasts.
//! - Whoever guesses keys waits in line with other guessers: a few are looked up at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use moka::future::Cache;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio_postgres::Client;

use super::api_key::{ApiKey, KeyId, KnownKey};
use super::jwt::Denied;
use super::lease::Leases;
use super::ledger::{self, LedgerError};
use super::principal::{Bearer, Credential, Principal};
use super::revoked::Revoked;
use super::settings::Settings;
use super::tenants;
use super::uses::Uses;
use crate::event::Tenant;
use crate::fair::Fair;
use crate::pg::{ConnectError, Connector};
use crate::tasks::{Tasks, pause};

const LISTEN: &str = "LISTEN tidewire_credentials";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[LISTEN];

/// Changes are looked for this often, whatever NOTIFY says.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// And no more often than this, whoever notifies.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A connection that has not answered within this time is replaced.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// When keys were used is written this often, and revocations that have ended are forgotten.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Keys remembered. Beyond it the one that was used least is looked up again.
const KNOWN_MAX: u64 = 50_000;
/// Tenants whose settings are remembered.
const SETTINGS_MAX: u64 = 10_000;
/// Keys that are looked up at once.
const LOOKUPS_MAX: usize = 4;
/// Administrative requests under way at once.
const ADMINISTRATION_MAX: usize = 4;
/// Keys read in one statement.
const KEYS_PER_READ: usize = 1_000;

/// See the module. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    /// Whether a LISTEN on this connection is of use.
    listens: bool,
    client: RwLock<Option<Arc<Client>>>,
    /// Nothing that is looked up and is older is remembered.
    version: AtomicI64,
    /// All that is remembered is as new as this. Held while it is being read again, so that nobody takes it for done.
    refreshed: Mutex<i64>,
    keys: Cache<KeyId, Arc<KnownKey>>,
    revoked: RwLock<Arc<Revoked>>,
    leases: Leases,
    lookups: Semaphore,
    /// Places of administrators on the one connection.
    administration: Arc<Fair>,
    uses: Uses,
    /// Of what is remembered of settings; nothing is older.
    settings_version: AtomicI64,
    settings: Cache<Tenant, Arc<(Arc<Settings>, i64)>>,
    /// Something may have changed.
    wake: Arc<Notify>,
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
            client: RwLock::default(),
            version: AtomicI64::new(-1),
            refreshed: Mutex::new(-1),
            keys: Cache::new(KNOWN_MAX),
            revoked: RwLock::default(),
            leases: Leases::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
            administration: Fair::new(ADMINISTRATION_MAX),
            uses: Uses::default(),
            settings_version: AtomicI64::new(-1),
            settings: Cache::new(SETTINGS_MAX),
            wake: Arc::default(),
        }));
        let client = registry.open().await?;
        let running = registry.clone();
        tasks.spawn_until_stop(async move { running.run(client).await });
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
    /// If it was revoked or has expired.
    pub(super) async fn check(&self, bearer: &Bearer) -> Result<(), Denied> {
        match &bearer.credential {
            Credential::ApiKey(id) => check(&*self.find(id).await?.ok_or(Denied::Revoked)?),
            Credential::Token { .. } if self.revoked().covers(bearer) => Err(Denied::Revoked),
            Credential::Token { .. } | Credential::None => Ok(()),
        }
    }

    /// What the tenant has decided. Who asks while it is being read waits for the same answer.
    pub(super) async fn settings(&self, tenant: &Tenant) -> Result<Arc<Settings>, LedgerError> {
        loop {
            let known = self.0.settings.try_get_with(tenant.clone(), async {
                let client = self.client()?;
                let (settings, version) = in_time(tenants::settings(&client, tenant)).await?;
                Ok(Arc::new((Arc::new(settings), version)))
            });
            let known = known
                .await
                .map_err(|error: Arc<LedgerError>| match &*error {
                    LedgerError::Unreadable(tenant) => LedgerError::Unreadable(tenant.clone()),
                    error => {
                        tracing::warn!(%error, "the settings of a tenant cannot be read");
                        LedgerError::Unavailable
                    }
                })?;
            // As with keys: remembered first, then compared.
            if known.1 >= self.0.settings_version.load(Ordering::SeqCst) {
                return Ok(Arc::clone(&known.0));
            }
            self.0.settings.invalidate(tenant).await;
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

    fn revoked(&self) -> Arc<Revoked> {
        let revoked = self
            .0
            .revoked
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&revoked)
    }

    pub(super) fn client(&self) -> Result<Arc<Client>, LedgerError> {
        let client = self.0.client.read().unwrap_or_else(PoisonError::into_inner);
        let client = client.clone().filter(|client| !client.is_closed());
        client.ok_or(LedgerError::Unavailable)
    }

    fn set_client(&self, client: Option<Arc<Client>>) {
        *self
            .0
            .client
            .write()
            .unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// The key as it is known, or as the database has it.
    async fn find(&self, id: &KeyId) -> Result<Option<Arc<KnownKey>>, Denied> {
        if let Some(known) = self.0.keys.get(id).await {
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
            if let Some(known) = self.0.keys.get(id).await {
                return Ok(Some(known));
            }
            let client = self.client()?;
            let Some((known, version)) = ledger::keys(&client, &[id.as_str()]).await?.pop() else {
                return Ok(None);
            };
            let known = Arc::new(known);
            self.0.keys.insert(id.clone(), Arc::clone(&known)).await;
            // Remembered first, then compared: whoever raises the version looks at all that is remembered after it.
            if version >= self.0.version.load(Ordering::SeqCst) {
                return Ok(Some(known));
            }
            self.0.keys.invalidate(id).await;
        }
    }

    /// A connection, with everything read anew.
    async fn open(&self) -> Result<Arc<Client>, RegistryError> {
        let wake = Arc::clone(&self.0.wake);
        let connector = &self.0.connector;
        let client = connector.connect_listening("credentials", move || wake.notify_one());
        let client = client.await?;
        let prepared = async {
            if self.0.listens {
                client.batch_execute(LISTEN).await?;
            }
            // Whatever was read before the connection was lost.
            *self.0.refreshed.lock().await = -1;
            self.look(&client).await
        };
        in_time(prepared).await?;
        let client = Arc::new(client);
        self.set_client(Some(Arc::clone(&client)));
        Ok(client)
    }

    async fn run(&self, mut client: Arc<Client>) {
        loop {
            if let Err(error) = self.watch(&client).await {
                tracing::warn!(%error, "credentials cannot be looked up: those that are known stay in force");
            }
            self.set_client(None);
            let mut backoff = RECONNECT_MIN;
            client = loop {
                pause(backoff).await;
                match self.open().await {
                    Ok(client) => break client,
                    Err(error) => tracing::debug!(%error, "no connection for credentials"),
                }
                backoff = backoff.saturating_mul(2).min(RECONNECT_MAX);
            };
        }
    }

    /// Looks for changes until the connection fails.
    async fn watch(&self, client: &Arc<Client>) -> Result<(), LedgerError> {
        self.forget_revoked().await;
        let mut kept_up_at = Instant::now();
        loop {
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.0.wake.notified()).await;
            in_time(self.look(client)).await?;
            if kept_up_at.elapsed() >= UPKEEP_INTERVAL {
                kept_up_at = Instant::now();
                self.write_used().await;
                self.forget_revoked().await;
            }
            pause(LOOK_PAUSE).await;
        }
    }

    /// Reads again all that is remembered, if something has changed, and ends what has lost its credential.
    pub(super) async fn look(&self, client: &Client) -> Result<(), LedgerError> {
        let mut refreshed = self.0.refreshed.lock().await;
        let (version, settings) = ledger::versions(client).await?;
        // What is older is read again when it is asked for.
        self.0.settings_version.store(settings, Ordering::SeqCst);
        if version != *refreshed {
            // First: what is looked up from now on and is older is not kept.
            self.0.version.store(version, Ordering::SeqCst);
            self.refresh(client).await?;
            *refreshed = version;
        }
        Ok(())
    }

    async fn refresh(&self, client: &Client) -> Result<(), LedgerError> {
        let revoked = Arc::new(ledger::revoked(client).await?);
        *self
            .0
            .revoked
            .write()
            .unwrap_or_else(PoisonError::into_inner) = revoked;
        let mut ids: HashSet<KeyId> = self.0.keys.iter().map(|(id, _)| (*id).clone()).collect();
        ids.extend(self.0.leases.keys());
        let mut current = HashMap::new();
        let texts: Vec<&str> = ids.iter().map(KeyId::as_str).collect();
        for texts in texts.chunks(KEYS_PER_READ) {
            let read = ledger::keys(client, texts).await?;
            current.extend(
                read.into_iter()
                    .map(|(key, _)| (key.id.clone(), Arc::new(key))),
            );
        }
        for id in &ids {
            match current.get(id) {
                Some(key) => self.0.keys.insert(id.clone(), Arc::clone(key)).await,
                None => self.0.keys.invalidate(id).await,
            }
        }
        let revoked = self.revoked();
        self.0.leases.end_where(|bearer| match &bearer.credential {
            // A key that came into use meanwhile has been looked at by whoever used it.
            Credential::ApiKey(id) => {
                ids.contains(id) && current.get(id).is_none_or(|key| key.is_revoked)
            }
            Credential::Token { .. } => revoked.covers(bearer),
            Credential::None => false,
        });
        Ok(())
    }
}

fn check(known: &KnownKey) -> Result<(), Denied> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    if known.is_revoked {
        Err(Denied::Revoked)
    } else if known.grant.expires_at.is_some_and(|at| at <= now) {
        Err(Denied::Expired)
    } else {
        Ok(())
    }
}

/// An answer in time, or none.
pub(super) async fn in_time<T>(
    asked: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    match answered.unwrap_or(Err(LedgerError::Unavailable)) {
        Err(LedgerError::Database(error)) if error.as_db_error().is_none() => {
            tracing::debug!(%error, "the connection for credentials failed");
            Err(LedgerError::Unavailable)
        }
        answer => answer,
    }
}
