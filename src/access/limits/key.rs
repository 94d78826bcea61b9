//! Whose tokens and places they are, as a number: of a tenant, or of a credential.
//!
//! # Invariants
//! - Nobody can choose a name that meets another's key: the hash has a secret of this process.

use std::hash::{BuildHasher as _, Hasher, RandomState};

use crate::access::{Credential, Principal};

/// Eight bytes, whatever the name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// Some key.
    #[cfg(test)]
    pub(super) const fn for_test(number: u64) -> Self {
        Self(number)
    }
}

/// A key is spread already.
#[derive(Debug, Default, Clone)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Whose tokens a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The tenant's.
    pub tenant: Key,
    /// The credential's: of an API key by its id, of tokens by their subject, which is the same in each that is issued.
    pub credential: Key,
}

impl Keys {
    /// The keys of who is calling.
    pub(super) fn of(principal: &Principal, secret: &RandomState) -> Self {
        let tenant = principal.tenant.as_str();
        let credential = match &principal.credential {
            Credential::ApiKey { id, .. } => secret.hash_one(("key", id)),
            Credential::Token { .. } => secret.hash_one(("token", tenant, principal.name.as_str())),
            Credential::None => secret.hash_one(("none", tenant)),
        };
        Self {
            tenant: Key(secret.hash_one(("tenant", tenant))),
            credential: Key(credential),
        }
    }
}

impl super::Account {
    /// Whether both are of the same credential of the same tenant.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}
