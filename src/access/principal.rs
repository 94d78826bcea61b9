//! Who is calling, and what they may read and write.
//!
//! # Invariants
//! - Every route and every frame asks here; nowhere else is a topic compared with a grant.

use serde::{Deserialize, Serialize};

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
}

/// What a principal showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: development mode.
    None,
    /// A token.
    Token {
        /// Its `jti`.
        id: Option<Box<str>>,
        /// Its `iat`, in seconds since 1970.
        issued_at: Option<u64>,
    },
}

/// The holder of a credential.
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
    /// Seconds since 1970 at which it ends.
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

    /// Whether events of this topic may be written.
    #[must_use]
    pub fn may_write(&self, topic: &Topic) -> bool {
        self.write.iter().any(|grant| grant.matches(topic.as_str()))
    }

    /// Whether all that the filter matches may be read; else the pattern that is too wide.
    ///
    /// # Errors
    /// The first pattern of the filter that no grant covers.
    pub fn may_read<'a>(&self, filter: &'a Filter) -> Result<(), &'a TopicPattern> {
        let is_covered =
            |pattern: &&TopicPattern| !self.read.iter().any(|grant| grant.covers(pattern));
        filter.topics().iter().find(is_covered).map_or(Ok(()), Err)
    }

    /// What is read if the request does not say: all that may be read.
    #[must_use]
    pub fn readable(&self) -> Vec<TopicPattern> {
        self.read.clone()
    }

    /// Whether the state of the server may be seen.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}
