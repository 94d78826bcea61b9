//! What administrators do with credentials and settings: create, list, revoke, change.
//!
//! # Invariants
//! - Who asks names the tenant by its own credential; nothing of another's is seen or changed.
//! - A few read at once, and tenants take turns: those who look up keys on the same connection wait for few. Changes have turns of
//!   their own (`changes`).

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::api_key::{ApiKey, Grant, KeyId};
use super::changes::{Of, soon};
use super::ledger::{self, LedgerError, ListedKey};
use super::registry::Registry;
use super::revocations::{self, ListedRevocation};
use super::revoked::{Claim, Revocation};
use super::tenants::{self, Change, Declaration, ListedSettings, ListedTopic};
use crate::event::{Label, Tenant, TopicPattern};
use crate::fair::Permit;

/// Credentials that bear a name.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedCredentials {
    /// API keys, ended ones included; [`ledger::LIST_MAX`] at most.
    pub api_keys: Vec<ListedKey>,
    /// There are more API keys: [`Registry::list_keys`] goes on after the last.
    pub has_more: bool,
    /// That of the tokens of this subject, if it is in force.
    pub revocations: Vec<ListedRevocation>,
}

impl Registry {
    /// Waits for a place among those who read.
    async fn turn(&self, tenant: &Tenant) -> Result<Permit, LedgerError> {
        soon(self.administration(), tenant).await
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
        let key = ApiKey::generate();
        let new = &key;
        let create = move |client: Arc<Client>| async move {
            ledger::create_key(&client, new, grant, by).await
        };
        let created_at = self.change(Of::Credentials, &grant.tenant, create).await?;
        Ok((key, created_at))
    }

    /// The tenant's keys after this id, [`ledger::LIST_MAX`] at most, and whether there are more; with a name those of this name.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_keys(
        &self,
        tenant: &Tenant,
        after: &str,
        name: Option<&Label>,
    ) -> Result<(Vec<ListedKey>, bool), LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let line = &lines.looks;
        line.ask(ledger::list_keys(line.client(), tenant, after, name))
            .await
    }

    /// Revokes a key of the tenant; whether there is one. When this returns it is refused here.
    ///
    /// # Errors
    /// If the database cannot be asked, or another transaction is in the way.
    pub async fn revoke_key(
        &self,
        tenant: &Tenant,
        id: &KeyId,
        by: &str,
    ) -> Result<bool, LedgerError> {
        let revoke = move |client: Arc<Client>| async move {
            ledger::revoke_key(&client, tenant, id, by).await
        };
        let is_there = self.change(Of::Credentials, tenant, revoke).await?;
        self.look_now().await?;
        Ok(is_there)
    }

    /// Revokes tokens of the tenant. When this returns they are refused here.
    ///
    /// # Errors
    /// If the tenant has too many revocations, the database cannot be asked, or another transaction is in the way.
    pub async fn revoke_tokens(
        &self,
        tenant: &Tenant,
        revocation: &Revocation,
        by: &str,
    ) -> Result<DateTime<Utc>, LedgerError> {
        let revoke = move |client: Arc<Client>| async move {
            revocations::revoke_tokens(&client, tenant, revocation, by).await
        };
        let at = self.change(Of::Credentials, tenant, revoke).await?;
        self.look_now().await?;
        Ok(at)
    }

    /// Takes back a revocation of the tenant; whether there was one. When this returns its tokens count here.
    ///
    /// # Errors
    /// If the database cannot be asked, or another transaction is in the way.
    pub async fn withdraw_revocation(
        &self,
        tenant: &Tenant,
        claim: Claim,
        value: &Label,
        by: &str,
    ) -> Result<bool, LedgerError> {
        let withdraw = move |client: Arc<Client>| async move {
            revocations::withdraw(&client, tenant, claim, value, by).await
        };
        let was_there = self.change(Of::Credentials, tenant, withdraw).await?;
        self.look_now().await?;
        Ok(was_there)
    }

    /// The tenant's revocations after this claim and value, [`ledger::LIST_MAX`] at most, and whether there are more.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_revoked(
        &self,
        tenant: &Tenant,
        after: (&str, &str),
    ) -> Result<(Vec<ListedRevocation>, bool), LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let line = &lines.looks;
        line.ask(revocations::list_revoked(line.client(), tenant, after))
            .await
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
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let line = &lines.looks;
        line.ask(async {
            let client = line.client();
            let (api_keys, has_more) = ledger::list_keys(client, tenant, "", Some(name)).await?;
            Ok(ListedCredentials {
                api_keys,
                has_more,
                revocations: revocations::of_subject(client, tenant, name).await?,
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
        let line = &lines.settings;
        let listed = line.ask(tenants::listed(line.client(), tenant));
        Ok(listed.await?.0)
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
        let ask = move |client: Arc<Client>| async move {
            tenants::change(&client, tenant, change, by).await
        };
        self.change(Of::Settings, tenant, ask).await?;
        self.look_now().await
    }

    /// The tenant's declared topics.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn list_topics(&self, tenant: &Tenant) -> Result<Vec<ListedTopic>, LedgerError> {
        let _turn = self.turn(tenant).await?;
        let lines = self.0.lines()?;
        let line = &lines.settings;
        line.ask(tenants::topics(line.client(), tenant)).await
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
        let settings = match self.settings(tenant).await {
            // To be corrected by what is declared now.
            Err(LedgerError::Unreadable(_)) => Arc::default(),
            settings => settings?,
        };
        if !settings.have_room_for(declared) {
            return Err(LedgerError::TooLarge);
        }
        let declare = move |client: Arc<Client>| async move {
            tenants::declare(&client, tenant, declared, by).await
        };
        self.change(Of::Settings, tenant, declare).await?;
        self.look_now().await
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
        let withdraw = move |client: Arc<Client>| async move {
            tenants::withdraw(&client, tenant, pattern, by).await
        };
        let changed = self.change(Of::Settings, tenant, withdraw).await?;
        self.look_now().await?;
        Ok(changed)
    }
}
