//! How what has changed is taken over.
//!
//! # Invariants
//! - Everything is read first. Then, in one step in which nothing waits, memory changes and what has lost its credential ends: who is
//!   given up on before it has changed nothing, and nobody sees half of it.
//! - A credential that changes costs a read of itself, however many others there are. What is read is bounded by the page.
//! - What is looked up while that step is made is not kept: it may be older.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use super::api_key::{KeyId, KnownKey};
use super::ledger::{self, LedgerError};
use super::lines::Line;
use super::news::{self, Changed, Place};
use super::principal::{Credential, Principal};
use super::registry::Registry;
use super::revocations::{self, After};
use super::revoked::Revoked;

/// Keys read in one statement.
const KEYS_PER_READ: usize = 1_000;

/// API keys as the database has them; none: it has not, or what it has cannot be read.
type Keys = HashMap<KeyId, Option<Arc<KnownKey>>>;

impl Registry {
    /// Takes over what has changed since `snapshot`.
    pub(super) async fn take_changes(
        &self,
        line: &Line,
        snapshot: &str,
    ) -> Result<(), LedgerError> {
        let mut place = Place::default();
        loop {
            let read = news::changed(line.client(), snapshot, &place);
            let mut changed = line.ask(read).await?;
            let mut keys = Keys::new();
            read_keys(line, &changed.keys, &mut keys).await?;
            let next = changed.next.take();
            self.take(changed, &keys);
            match next {
                Some(next) => place = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes over everything that is remembered, whatever was known before.
    pub(super) async fn take_all(&self, line: &Line) -> Result<(), LedgerError> {
        // First: what was asked of another connection, and comes from now on, is not kept.
        self.outdate();
        let mut revoked = Revoked::default();
        let mut after = After::default();
        loop {
            let page = revocations::revoked(line.client(), &after, &mut revoked);
            match line.ask(page).await? {
                Some(next) => after = next,
                None => break,
            }
        }
        let mut wanted: HashSet<KeyId> = self.known_keys().into_iter().collect();
        wanted.extend(self.leases().keys());
        let mut keys = Keys::new();
        let mut revoked = Some(revoked);
        while !wanted.is_empty() || revoked.is_some() {
            read_keys(line, &wanted, &mut keys).await?;
            wanted = self.replace(&mut revoked, &keys);
        }
        Ok(())
    }

    /// What is being looked up is older than something that has changed.
    fn outdate(&self) {
        let mut version = self.0.version();
        raise(&mut version);
    }

    /// The step for some changes.
    fn take(&self, changed: Changed, keys: &Keys) {
        let mut version = self.0.version();
        raise(&mut version);
        for (id, key) in keys {
            match key {
                Some(key) if self.0.keys.contains_key(id) => {
                    self.0.keys.insert(id.clone(), Arc::clone(key));
                }
                // Nobody asks for it here.
                Some(_) => {}
                None => self.0.keys.invalidate(id),
            }
        }
        // What was revoked before has ended its own.
        let new = changed.revoked.clone();
        {
            let all = self.0.revoked.write();
            let mut all = all.unwrap_or_else(PoisonError::into_inner);
            for (tenant, claim, value) in &changed.withdrawn {
                all.remove(tenant, *claim, value);
            }
            all.extend(changed.revoked);
        }
        self.leases().end_where(|holder| match &holder.credential {
            Credential::ApiKey { id, .. } => keys
                .get(id)
                .is_some_and(|key| !still_grants(key.as_deref(), holder)),
            Credential::Token { .. } => new.covers(holder),
            Credential::None => false,
        });
    }

    /// The step for everything: nothing is done if keys are in use that were not read, which are returned. Then `revoked` is taken.
    fn replace(&self, revoked: &mut Option<Revoked>, keys: &Keys) -> HashSet<KeyId> {
        let mut version = self.0.version();
        let in_use = self.leases().keys().into_iter();
        let missing: HashSet<_> = in_use.filter(|id| !keys.contains_key(id)).collect();
        let Some(mut new) = revoked.take_if(|_| missing.is_empty()) else {
            return missing;
        };
        raise(&mut version);
        for id in self.known_keys() {
            match keys.get(&id) {
                Some(Some(key)) => self.0.keys.insert(id, Arc::clone(key)),
                Some(None) | None => self.0.keys.invalidate(&id),
            }
        }
        {
            let all = self.0.revoked.write();
            std::mem::swap(&mut *all.unwrap_or_else(PoisonError::into_inner), &mut new);
        }
        self.leases().end_where(|holder| match &holder.credential {
            Credential::ApiKey { id, .. } => {
                let key = keys.get(id).and_then(Option::as_deref);
                !still_grants(key, holder)
            }
            Credential::Token { .. } => self.is_revoked(holder),
            Credential::None => false,
        });
        // What was known before is let go after it.
        drop(version);
        HashSet::new()
    }

    fn known_keys(&self) -> Vec<KeyId> {
        let keys = self.0.keys.iter();
        keys.map(|(id, _)| (*id).clone()).collect()
    }
}

/// What is remembered changes: what is being looked up is not.
const fn raise(version: &mut u64) {
    *version = version.wrapping_add(1);
}

/// Whether the key is in force and says of its holder what it did.
pub(super) fn still_grants(key: Option<&KnownKey>, holder: &Principal) -> bool {
    key.is_some_and(|key| !key.is_revoked && key.principal() == *holder)
}

/// Reads keys; one that is not there, or cannot be read, is `None`.
async fn read_keys(
    line: &Line,
    wanted: &HashSet<KeyId>,
    keys: &mut Keys,
) -> Result<(), LedgerError> {
    let texts: Vec<&str> = wanted.iter().map(KeyId::as_str).collect();
    for texts in texts.chunks(KEYS_PER_READ) {
        let read = line.ask(ledger::keys(line.client(), texts)).await?;
        keys.extend(
            read.into_iter()
                .map(|key| (key.id.clone(), Some(Arc::new(key)))),
        );
    }
    for id in wanted {
        keys.entry(id.clone()).or_default();
    }
    Ok(())
}
