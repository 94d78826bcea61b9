//! Tokens that ended before their time.
//!
//! # Invariants
//! - A tenant revokes its own tokens only: the same `jti` or `sub` elsewhere stays in force.
//! - A token that does not say when it was issued counts as issued before any revocation of its subject.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::principal::{Bearer, Credential};
use crate::event::{Label, Tenant};

/// By which claim tokens are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// One token.
    Jti,
    /// All of a subject that were issued until then.
    Sub,
}

impl Claim {
    /// The claim with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "jti" => Some(Self::Jti),
            "sub" => Some(Self::Sub),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Sub => "sub",
        }
    }
}

/// What is to be revoked.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// By which claim.
    pub claim: Claim,
    /// Its value.
    pub value: Label,
    /// From then on no such token is valid any more, so that the revocation ends an hour later; `None`: not known, it stays.
    pub until: Option<DateTime<Utc>>,
}

/// Everything that was revoked.
#[derive(Debug, Default)]
pub struct Revoked(HashMap<Tenant, HashMap<(Claim, Box<str>), i64>>);

impl Revoked {
    /// Adds tokens that were revoked at a time.
    pub fn add(&mut self, tenant: Tenant, claim: Claim, value: &str, at: DateTime<Utc>) {
        let values = self.0.entry(tenant).or_default();
        values.insert((claim, value.into()), at.timestamp());
    }

    /// Whether the holder's token was revoked.
    #[must_use]
    pub fn covers(&self, bearer: &Bearer) -> bool {
        let Credential::Token { id, issued_at } = &bearer.credential else {
            return false;
        };
        let Some(values) = self.0.get(&bearer.tenant) else {
            return false;
        };
        let by_id = id
            .as_ref()
            .is_some_and(|id| values.contains_key(&(Claim::Jti, id.clone())));
        let subject = (Claim::Sub, bearer.name.as_str().into());
        by_id
            || values.get(&subject).is_some_and(|revoked_at| {
                let issued_at =
                    issued_at.map_or(i64::MIN, |at| i64::try_from(at).unwrap_or(i64::MAX));
                issued_at <= *revoked_at
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(tenant: &str, name: &str, id: Option<&str>, issued_at: Option<u64>) -> Bearer {
        Bearer {
            tenant: Tenant::parse(tenant).unwrap(),
            name: Label::parse(name).unwrap(),
            credential: Credential::Token {
                id: id.map(Into::into),
                issued_at,
            },
        }
    }

    #[test]
    fn tokens_are_revoked_by_id_or_by_subject_until_a_time() {
        let mut revoked = Revoked::default();
        let acme = Tenant::parse("acme").unwrap();
        let at = DateTime::from_timestamp(1_000, 500_000_000).unwrap();
        revoked.add(acme.clone(), Claim::Jti, "t1", at);
        revoked.add(acme, Claim::Sub, "mallory", at);
        for (bearer, is_revoked, why) in [
            (
                token("acme", "a", Some("t1"), Some(2_000)),
                true,
                "by its id, whenever it was issued",
            ),
            (
                token("acme", "a", Some("t2"), Some(1)),
                false,
                "another token",
            ),
            (
                token("beta", "a", Some("t1"), None),
                false,
                "another tenant's",
            ),
            (
                token("acme", "mallory", None, Some(1_000)),
                true,
                "issued until then",
            ),
            (
                token("acme", "mallory", None, Some(1_001)),
                false,
                "issued after it",
            ),
            (
                token("acme", "mallory", None, None),
                true,
                "nobody knows when it was issued",
            ),
            (
                token("beta", "mallory", None, None),
                false,
                "another tenant's subject",
            ),
            (token("acme", "t1", None, None), false, "a subject is no id"),
            (
                Bearer {
                    credential: Credential::None,
                    ..token("acme", "mallory", None, None)
                },
                false,
                "no token",
            ),
        ] {
            assert_eq!(revoked.covers(&bearer), is_revoked, "{why}");
        }
    }
}
