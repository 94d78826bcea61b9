//! Tokens that ended before their time.
//!
//! # Invariants
//! - A tenant revokes its own tokens only: the same `jti` or `sub` elsewhere stays in force.
//! - A token that does not say when it was issued counts as issued before any revocation of its subject.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::principal::{Credential, Principal};
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

/// Hours for which a revocation is in force beyond its `until`: servers' clocks differ, and a token is good for some time after
/// its end (`--jwt-leeway-s`). As many as `tidewire.announce_credential_change()` says.
pub const BEYOND_HOURS: i32 = 1;

/// The same in seconds.
fn beyond_s() -> i64 {
    i64::from(BEYOND_HOURS).saturating_mul(3_600)
}

/// When, and until when, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Term {
    at: i64,
    until: Option<i64>,
}

/// What was revoked, by tenant.
#[derive(Debug, Default, Clone)]
pub struct Revoked(HashMap<Tenant, HashMap<(Claim, Box<str>), Term>>);

impl Revoked {
    /// Adds tokens that were revoked at a time, until another.
    pub fn add(
        &mut self,
        tenant: Tenant,
        claim: Claim,
        value: &str,
        at: DateTime<Utc>,
        until: Option<DateTime<Utc>>,
    ) {
        let values = self.0.entry(tenant).or_default();
        let term = Term {
            at: at.timestamp(),
            until: until.map(|until| until.timestamp()),
        };
        values.insert((claim, value.into()), term);
    }

    /// Adds all of these; they are newer.
    pub fn extend(&mut self, newer: Self) {
        for (tenant, values) in newer.0 {
            self.0.entry(tenant).or_default().extend(values);
        }
    }

    /// Takes one back.
    pub fn remove(&mut self, tenant: &Tenant, claim: Claim, value: &str) {
        if let Some(values) = self.0.get_mut(tenant) {
            values.remove(&(claim, value.into()));
        }
    }

    /// Whose tokens were revoked.
    #[must_use]
    pub fn tenants(&self) -> Vec<Tenant> {
        self.0.keys().cloned().collect()
    }

    /// Forgets revocations of the tenant that have ended.
    pub fn forget_ended(&mut self, tenant: &Tenant, now: DateTime<Utc>) {
        let ended = now.timestamp().saturating_sub(beyond_s());
        if let Some(values) = self.0.get_mut(tenant) {
            values.retain(|_, term| term.until.is_none_or(|until| until > ended));
            if values.is_empty() {
                self.0.remove(tenant);
            }
        }
    }

    /// Whether the holder's token was revoked.
    #[must_use]
    pub fn covers(&self, holder: &Principal) -> bool {
        let Credential::Token { id, issued_at } = &holder.credential else {
            return false;
        };
        let Some(values) = self.0.get(&holder.tenant) else {
            return false;
        };
        let by_id = id
            .as_ref()
            .is_some_and(|id| values.contains_key(&(Claim::Jti, id.clone())));
        let subject = (Claim::Sub, holder.name.as_str().into());
        by_id
            || values.get(&subject).is_some_and(|revoked| {
                let issued_at =
                    issued_at.map_or(i64::MIN, |at| i64::try_from(at).unwrap_or(i64::MAX));
                issued_at <= revoked.at
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(tenant: &str, name: &str, id: Option<&str>, issued_at: Option<u64>) -> Principal {
        Principal {
            tenant: Tenant::parse(tenant).unwrap(),
            name: Label::parse(name).unwrap(),
            credential: Credential::Token {
                id: id.map(Into::into),
                issued_at,
            },
            ..Principal::development()
        }
    }

    #[test]
    fn tokens_are_revoked_by_id_or_by_subject_until_a_time() {
        let mut revoked = Revoked::default();
        let acme = Tenant::parse("acme").unwrap();
        let at = DateTime::from_timestamp(1_000, 500_000_000).unwrap();
        revoked.add(acme.clone(), Claim::Jti, "t1", at, None);
        revoked.add(acme, Claim::Sub, "mallory", at, None);
        for (holder, is_revoked, why) in [
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
                Principal {
                    credential: Credential::None,
                    ..token("acme", "mallory", None, None)
                },
                false,
                "no token",
            ),
        ] {
            assert_eq!(revoked.covers(&holder), is_revoked, "{why}");
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_and_what_is_taken_back_counts_no_more() {
        let acme = Tenant::parse("acme").unwrap();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let mut revoked = Revoked::default();
        revoked.add(acme.clone(), Claim::Jti, "a", at(1), None);
        revoked.add(acme.clone(), Claim::Jti, "b", at(1), Some(at(1_000)));
        let covered = |revoked: &Revoked| {
            ["a", "b"].map(|id| revoked.covers(&token("acme", "x", Some(id), None)))
        };
        revoked.forget_ended(&acme, at(1_000 + beyond_s() - 1));
        assert_eq!(covered(&revoked), [true, true]);
        revoked.forget_ended(&acme, at(1_000 + beyond_s()));
        assert_eq!(covered(&revoked), [true, false]);
        let mut newer = Revoked::default();
        newer.add(acme.clone(), Claim::Jti, "b", at(2), None);
        revoked.extend(newer);
        assert_eq!(covered(&revoked), [true, true]);
        revoked.remove(&acme, Claim::Jti, "a");
        assert_eq!(covered(&revoked), [false, true]);
        revoked.remove(&acme, Claim::Sub, "b");
        assert_eq!(covered(&revoked), [false, true], "another claim");
    }
}
