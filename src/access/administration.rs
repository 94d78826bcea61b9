//! What administrators do with credentials and settings: create, list, revoke, change.
//!
//! # Invariants
//! - Who asks names the tenant by its own credential; nothing of another's is seen or changed.
//! - A few are under way at once, and tenants take turns: those who look up keys on the same connection wait for few.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::api_key::{ApiKey, Grant, KeyId};
use super::ledger::{self, LedgerError, ListedKey};
use super::lines::{in_time, unless_held_up};
use super::registry::Registry;
use super::revocations::{self, ListedRevocation};
use super::revoked::Revocation;
use super::tenants::{self, Change, Declaration, ListedSettings, ListedTopic};
use crate::event::limits::ADMINISTRATION_WAITING_MAX;
use crate::event::{Label, Tenant, TopicPattern};
use crate::fair::{NoPermit, Permit};

/// How long a turn is waited for.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// Credentials that bear a name.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedCredentials {
    /// API keys, ended ones included; [`ledger::LIST_MAX`] at most.
    pub api_keys: Vec<ListedKey>,
    /// That of the tokens of this subject, if it is in force.
    pub revocations: Vec<ListedRevocation>,
}

impl Registry {
    async fn turn(&self, tenant: &Tenant) -> Result<Permit, LedgerError> {
        let places = self.administration();
        let turn = places.acquire_soon(tenant, ADMINISTRATION_WAITING_MAX, TURN_WAIT);
        turn.await.map_err(|why| match why {
            NoPermit::Crowded => LedgerError::Crowded,
            NoPermit::Late => LedgerError::Unavailable,
        })
    }

    /// A turn, and the connection for what is short.
    async fn brief(&self, tenant: &Tenant) -> Result<(Permit, Arc<Client>), LedgerError> {
        Ok((self.turn(tenant).await?, self.client()?))
    }

    /// Stores a new key.
    ///
    /// # Errors
    /// If the tenant has too many, or the database cannot be asked.
    pub async fn create_key(
        &self,
        grant: &Grant,
        by: &str,
    ) -> Result<(ApiKey, DateTime<Utc>), LedgerError> {
        let (_turn, client) = self.brief(&grant.tenant).await?;
        let key = ApiKey::generate();
        let created_at =
            unless_held_up(in_time(ledger::create_key(&client, &key, grant, by)).await)?;
        Ok((key, created_at))
    }

    /// The tenant's keys after this id.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_keys(
        &self,
        tenant: &Tenant,
        after: &str,
    ) -> Result<Vec<ListedKey>, LedgerError> {
        let (_turn, client) = self.brief(tenant).await?;
        in_time(ledger::list_keys(&client, tenant, after, None)).await
    }

    /// Revokes a key of the tenant; whether there is one. When this returns it is refused here.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn revoke_key(
        &self,
        tenant: &Tenant,
        id: &KeyId,
        by: &str,
    ) -> Result<bool, LedgerError> {
        let (_turn, client) = self.brief(tenant).await?;
        let changed = in_time(async {
            let is_there = ledger::revoke_key(&client, tenant, id, by).await?;
            self.look(&client).await?;
            Ok(is_there)
        });
        unless_held_up(changed.await)
    }

    /// Revokes tokens of the tenant. When this returns they are refused here.
    ///
    /// # Errors
    /// If the tenant has too many revocations, or the database cannot be asked.
    pub async fn revoke_tokens(
        &self,
        tenant: &Tenant,
        revocation: &Revocation,
        by: &str,
    ) -> Result<DateTime<Utc>, LedgerError> {
        let (_turn, client) = self.brief(tenant).await?;
        let changed = in_time(async {
            let at = revocations::revoke_tokens(&client, tenant, revocation, by).await?;
            self.look(&client).await?;
            Ok(at)
        });
        unless_held_up(changed.await)
    }

    /// The tenant's revocations.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_revoked(
        &self,
        tenant: &Tenant,
    ) -> Result<Vec<ListedRevocation>, LedgerError> {
        let (_turn, client) = self.brief(tenant).await?;
        in_time(revocations::list_revoked(&client, tenant, None)).await
    }

    /// The credentials of the tenant that bear this name.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn bearing(
        &self,
        tenant: &Tenant,
        name: &Label,
    ) -> Result<ListedCredentials, LedgerError> {
        let (_turn, client) = self.brief(tenant).await?;
        in_time(async {
            Ok(ListedCredentials {
                api_keys: ledger::list_keys(&client, tenant, "", Some(name)).await?,
                revocations: revocations::list_revoked(&client, tenant, Some(name)).await?,
            })
        })
        .await
    }

    /// The tenant's settings as they stand.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_settings(&self, tenant: &Tenant) -> Result<ListedSettings, LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let (listed, _) = lines.ask(tenants::listed(&lines.settings, tenant)).await?;
        Ok(listed)
    }

    /// Changes settings of the tenant. When this returns they are in force here.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn change_settings(
        &self,
        tenant: &Tenant,
        change: &Change,
        by: &str,
    ) -> Result<(), LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let changed = tenants::change(&lines.settings, tenant, change, by);
        lines.ask(changed).await?;
        in_time(self.look(&lines.looks)).await
    }

    /// The tenant's declared topics.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_topics(&self, tenant: &Tenant) -> Result<Vec<ListedTopic>, LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        lines.ask(tenants::topics(&lines.settings, tenant)).await
    }

    /// Declares topics of the tenant. When this returns that is in force here.
    ///
    /// # Errors
    /// If the tenant has declared too many, its schemas are too large together, or the database cannot be asked.
    pub async fn declare_topic(
        &self,
        tenant: &Tenant,
        declared: &Declaration,
        by: &str,
    ) -> Result<(), LedgerError> {
        let _turn = self.turn(tenant).await?;
        let settings = match self.settings(tenant).await {
            // To be corrected by what is declared now.
            Err(LedgerError::Unreadable(_)) => Arc::default(),
            settings => settings?,
        };
        if !settings.have_room_for(declared) {
            return Err(LedgerError::TooLarge);
        }
        let lines = self.0.lines()?;
        let changed = tenants::declare(&lines.settings, tenant, declared, by);
        lines.ask(changed).await?;
        in_time(self.look(&lines.looks)).await
    }

    /// Withdraws a declared topic of the tenant; whether there was one.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn withdraw_topic(
        &self,
        tenant: &Tenant,
        pattern: &TopicPattern,
        by: &str,
    ) -> Result<bool, LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let changed = tenants::withdraw(&lines.settings, tenant, pattern, by);
        let changed = lines.ask(changed).await?;
        in_time(self.look(&lines.looks)).await?;
        Ok(changed)
    }
}
