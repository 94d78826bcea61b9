//! What administrators do with credentials and settings: create, list, revoke, change.
//!
//! # Invariants
//! - Who asks names the tenant by its own credential; nothing of another's is seen or changed. Changes are begun under its lease.
//! - A few read at once, and tenants take turns: those who look up keys on the same connection wait for few. Changes have turns of
//!   their own (`changes`).
//! - What takes a credential away is answered once it is in force here, else with an error: asked for again, it is answered the same.
//!   Whatever else is done is answered as done: who asked again for what is withdrawn would hear that it was never there.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;
use uuid::Uuid;

use super::api_key::{ApiKey, Grant, KeyId};
use super::changes::{Of, soon};
use super::lease::Lease;
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
    /// API keys, ended ones included; [`LIST_MAX`](crate::event::limits::LIST_MAX) at most.
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
        lease: &Lease,
    ) -> Result<(ApiKey, DateTime<Utc>), LedgerError> {
        let key = ApiKey::generate();
        let new = &key;
        let create = move |client: Arc<Client>| async move {
            ledger::create_key(&client, new, grant, by).await
        };
        let created_at = self
            .change(Of::Credentials, (&grant.tenant, lease), create)
            .await?;
        Ok((key, created_at))
    }

    /// The tenant's keys after this id, [`LIST_MAX`](crate::event::limits::LIST_MAX) at most, and whether there are more; with a name those of this name.
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
    /// If the database cannot be asked, or another transaction is in the way: the key may be revoked then.
    pub async fn revoke_key(
        &self,
        tenant: &Tenant,
        id: &KeyId,
        by: &str,
        lease: &Lease,
    ) -> Result<bool, LedgerError> {
        let revoke = move |client: Arc<Client>| async move {
            ledger::revoke_key(&client, tenant, id, by).await
        };
        self.change_at_once(Of::Credentials, (tenant, lease), revoke)
            .await
    }

    /// Revokes tokens of the tenant. When this returns they are refused here.
    ///
    /// # Errors
    /// If the tenant has too many revocations, the database cannot be asked, or another transaction is in the way: they may be revoked
    /// then.
    pub async fn revoke_tokens(
        &self,
        tenant: &Tenant,
        revocation: &Revocation,
        by: &str,
        lease: &Lease,
    ) -> Result<DateTime<Utc>, LedgerError> {
        let revoke = move |client: Arc<Client>| async move {
            revocations::revoke_tokens(&client, tenant, revocation, by).await
        };
        self.change_at_once(Of::Credentials, (tenant, lease), revoke)
            .await
    }

    /// Takes back a revocation of the tenant; whether there was one. When this returns its tokens count here, or soon, where
    /// nobody can look at the moment.
    ///
    /// # Errors
    /// If the database cannot be asked, or another transaction is in the way.
    pub async fn withdraw_revocation(
        &self,
        tenant: &Tenant,
        claim: Claim,
        value: &Label,
        by: &str,
        lease: &Lease,
    ) -> Result<bool, LedgerError> {
        let withdraw = move |client: Arc<Client>| async move {
            revocations::withdraw(&client, tenant, claim, value, by).await
        };
        let was_there = self
            .change(Of::Credentials, (tenant, lease), withdraw)
            .await?;
        if let Err(error) = self.look_now().await {
            tracing::warn!(%error, "a revocation that was taken back counts until the next look");
        }
        Ok(was_there)
    }

    /// The tenant's revocations after this claim and value, [`LIST_MAX`](crate::event::limits::LIST_MAX) at most, and whether there are more.
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
        lease: &Lease,
    ) -> Result<(), LedgerError> {
        let ask = move |client: Arc<Client>| async move {
            tenants::change(&client, tenant, change, by).await
        };
        self.change(Of::Settings, (tenant, lease), ask).await?;
        self.take_settings(tenant).await;
        Ok(())
    }

    /// What was changed of the tenant's settings is in force here when this returns.
    async fn take_settings(&self, tenant: &Tenant) {
        if let Err(error) = self.look_now().await {
            tracing::warn!(%error, "changed settings are read again by who asks for them");
            // A mark that nobody has seen.
            let mark = Some(Uuid::now_v7());
            self.0.settings.announce(tenant, mark).await;
        }
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
        lease: &Lease,
    ) -> Result<(), LedgerError> {
        let settings = match lease.run(self.settings(tenant)).await? {
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
        self.change(Of::Settings, (tenant, lease), declare).await?;
        self.take_settings(tenant).await;
        Ok(())
    }

    /// Withdraws a declared topic of the tenant; whether there was one. When this returns that is in force here.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn withdraw_topic(
        &self,
        tenant: &Tenant,
        pattern: &TopicPattern,
        by: &str,
        lease: &Lease,
    ) -> Result<bool, LedgerError> {
        let withdraw = move |client: Arc<Client>| async move {
            tenants::withdraw(&client, tenant, pattern, by).await
        };
        let was_there = self.change(Of::Settings, (tenant, lease), withdraw).await?;
        self.take_settings(tenant).await;
        Ok(was_there)
    }
}
