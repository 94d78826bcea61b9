//! API keys: `tw_<key id>_<secret>`, 16 characters of base32hex and 43 of base64url.
//!
//! # Invariants
//! - A key is shown once, when it is made; what is kept of its secret is a hash. The secret is 256 random bits, so that a
//!   plain SHA-256 is enough: there is nothing to guess that a slow hash would protect.
//! - Secrets are compared in constant time.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE32HEX_NOPAD, BASE64URL_NOPAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::principal::Credential;
use super::{Principal, Role, Secret};
use crate::event::{Label, Tenant, TopicPattern};

/// How every key begins, so that people and scanners for lost secrets know one.
pub const PREFIX: &str = "tw_";
/// Characters of a key id: 80 bits.
const ID_CHARS: usize = 16;
/// Characters of a secret: 256 bits.
const SECRET_CHARS: usize = 43;

/// The public part of a key, by which it is listed and revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Checks `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id =
            text.len() == ID_CHARS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'));
        is_id.then(|| Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller holds: never printed but once.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its public part.
    pub id: KeyId,
    secret: Secret,
}

impl ApiKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let id = BASE32HEX_NOPAD
            .encode(&rand::random::<[u8; 10]>())
            .to_ascii_lowercase();
        Self {
            id: KeyId(id.into()),
            secret: Secret::new(BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())),
        }
    }

    /// Reads a key; `None` if the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (id, secret) = rest.split_at_checked(ID_CHARS)?;
        let secret = secret.strip_prefix('_')?;
        let is_secret = secret.len() == SECRET_CHARS
            && secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        is_secret.then_some(())?;
        Some(Self {
            id: KeyId::parse(id)?,
            secret: Secret::new(secret),
        })
    }

    /// The whole key, for whoever it was made for.
    #[must_use]
    pub fn reveal(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}_{}", self.id, self.secret.reveal()))
    }

    /// What is kept of the secret.
    #[must_use]
    pub fn secret_sha256(&self) -> [u8; 32] {
        Sha256::digest(self.secret.reveal().as_bytes()).into()
    }
}

/// What a key lets its holder do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose events.
    pub tenant: Tenant,
    /// The key's name: the source of events that name none.
    pub name: Label,
    /// What it is for.
    pub role: Role,
    /// Topics it may read.
    pub read: Vec<TopicPattern>,
    /// Topics it may write.
    pub write: Vec<TopicPattern>,
    /// Seconds since 1970 at which it ends.
    pub expires_at: Option<u64>,
}

/// A key as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Its public part.
    pub id: KeyId,
    /// What it lets its holder do.
    pub grant: Grant,
    /// Whether it was revoked.
    pub is_revoked: bool,
    /// Of its secret.
    pub secret_sha256: [u8; 32],
}

impl KnownKey {
    /// Whether `key` is this one.
    #[must_use]
    pub fn is(&self, key: &ApiKey) -> bool {
        let is_secret = self.secret_sha256.ct_eq(&key.secret_sha256());
        self.id == key.id && bool::from(is_secret)
    }

    /// Who its holder is.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            tenant: self.grant.tenant.clone(),
            name: self.grant.name.clone(),
            role: self.grant.role,
            read: self.grant.read.clone(),
            write: self.grant.write.clone(),
            expires_at: self.grant.expires_at,
            credential: Credential::ApiKey {
                id: self.id.clone(),
                secret_sha256: self.secret_sha256,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_is_not_seen() {
        let key = ApiKey::generate();
        let text = key.reveal();
        let read = ApiKey::parse(text.reveal()).unwrap();
        assert_eq!(read.id, key.id);
        assert_eq!(read.secret_sha256(), key.secret_sha256());
        assert_eq!(text.reveal().len(), 63);
        assert!(!format!("{key:?}").contains(key.secret.reveal()));
        assert_ne!(ApiKey::generate().id, key.id);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = ApiKey::generate().reveal();
        let good = good.reveal();
        for (text, why) in [
            (String::new(), "nothing"),
            (good[1..].to_owned(), "no prefix"),
            (format!("{good}A"), "too long"),
            (good[..good.len() - 1].to_owned(), "too short"),
            (good.replacen("tw_", "tw_W", 1), "another alphabet"),
            (format!("{}é", &good[..good.len() - 2]), "no ASCII"),
            (
                good[..20].to_owned() + "é" + &good[22..],
                "cut within a character",
            ),
        ] {
            assert!(ApiKey::parse(&text).is_none(), "{why}");
        }
    }
}
