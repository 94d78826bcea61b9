//! Who is calling, and what they may read and write.
//!
//! # Invariants
//! - Every route and every frame asks here; nowhere else is a topic compared with a grant.

use serde::{Deserialize, Serialize};

use super::api_key::KeyId;
use crate::event::{Filter, Label, Tenant, Topic, TopicPattern};

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Writes events, reads commands.
    Agent,
    /// Reads events.
    Dashboard,
    /// Reads events.
    Analyst,
    /// Everything in its tenant, and the state of the server.
    Admin,
}

impl Role {
    /// The role with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "agent" => Some(Self::Agent),
            "dashboard" => Some(Self::Dashboard),
            "analyst" => Some(Self::Analyst),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Dashboard => "dashboard",
            Self::Analyst => "analyst",
            Self::Admin => "admin",
        }
    }
}

/// What a principal showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Nothing: development mode.
    None,
    /// An API key.
    ApiKey {
        /// Its public part.
        id: KeyId,
        /// Of its secret: what begins with one ends when the key is given another.
        secret_sha256: [u8; 32],
    },
    /// A token.
    Token {
        /// Its `jti`.
        id: Option<Box<str>>,
        /// Its `iat`, in seconds since 1970.
        issued_at: Option<u64>,
    },
}

/// Who holds which credential: what it takes to know whether it still counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bearer {
    /// Whose events.
    pub tenant: Tenant,
    /// The credential's name.
    pub name: Label,
    /// What was shown.
    pub credential: Credential,
}

/// The holder of a credential, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose events.
    pub tenant: Tenant,
    /// The credential's name: the source of events that name none.
    pub name: Label,
    /// What the credential is for.
    pub role: Role,
    /// Topics it may read.
    pub read: Vec<TopicPattern>,
    /// Topics it may write.
    pub write: Vec<TopicPattern>,
    /// Seconds since 1970 at which it ends, the time included by which clocks may differ.
    pub expires_at: Option<u64>,
    /// What it showed.
    pub credential: Credential,
}

impl Principal {
    /// The administrator of the tenant `dev`.
    #[must_use]
    pub fn development() -> Self {
        Self {
            tenant: Tenant::dev(),
            name: Label::developer(),
            role: Role::Admin,
            read: vec![TopicPattern::any()],
            write: vec![TopicPattern::any()],
            expires_at: None,
            credential: Credential::None,
        }
    }

    /// The same by the clock of an issuer that may differ by so many seconds, always to the safe side of what is revoked: it
    /// ends that much later, and may have been issued that much earlier.
    #[must_use]
    pub(super) fn by_a_clock_that_may_differ(mut self, leeway_s: u64) -> Self {
        self.expires_at = self.expires_at.map(|at| at.saturating_add(leeway_s));
        if let Credential::Token { issued_at, .. } = &mut self.credential {
            *issued_at = issued_at.map(|at| at.saturating_sub(leeway_s));
        }
        self
    }

    /// Who it is, without what it may do.
    #[must_use]
    pub fn bearer(&self) -> Bearer {
        Bearer {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            credential: self.credential.clone(),
        }
    }

    /// Whether events of this topic may be written: by a grant, never as an analyst, and never the log's own.
    #[must_use]
    pub fn may_write(&self, topic: &Topic) -> bool {
        self.role != Role::Analyst
            && !topic.is_kept()
            && self.write.iter().any(|grant| grant.matches(topic.as_str()))
    }

    /// Whether all that the filter matches may be read, by grants; the log's own topics by administrators alone. Else the
    /// pattern that is too wide.
    ///
    /// # Errors
    /// The first pattern of the filter that is not covered.
    pub fn may_read<'a>(&self, filter: &'a Filter) -> Result<(), &'a TopicPattern> {
        let is_refused = |pattern: &&TopicPattern| {
            if pattern.is_reserved() {
                self.role != Role::Admin
            } else {
                !self.read.iter().any(|grant| grant.covers(pattern))
            }
        };
        filter.topics().iter().find(is_refused).map_or(Ok(()), Err)
    }

    /// Whether these topics may be granted to somebody else; else the pattern that is too wide.
    ///
    /// # Errors
    /// The first pattern that is not covered by what this credential may read or write itself.
    pub fn may_grant<'a>(
        &self,
        read: &'a [TopicPattern],
        write: &'a [TopicPattern],
    ) -> Result<(), &'a TopicPattern> {
        let lacks = |held: &[TopicPattern], wanted: &TopicPattern| {
            !held.iter().any(|own| own.covers(wanted))
        };
        let read = read.iter().find(|wanted| lacks(&self.read, wanted));
        let write = write.iter().find(|wanted| lacks(&self.write, wanted));
        read.or(write).map_or(Ok(()), Err)
    }

    /// Whether the tenant's credentials and settings may be seen and changed, and the state of the server be seen.
    #[must_use]
    pub fn may_administer(&self) -> bool {
        self.role == Role::Admin
    }

    /// What is read if the request does not say: all that may be read.
    #[must_use]
    pub fn readable(&self) -> Vec<TopicPattern> {
        let is_granted = |grant: &&TopicPattern| !grant.is_reserved() || self.role == Role::Admin;
        self.read.iter().filter(is_granted).cloned().collect()
    }
}
