//! What a tenant has decided about the events that it takes.
//!
//! # Invariants
//! - The rules are those of `sql/functions/check_admission.sql`, which asks them of those who write in SQL.

use std::sync::Arc;

use super::schema::{Schema, Size};
use super::tenants::Declaration;
use crate::event::limits::{TENANT_PATTERNS_MAX, TENANT_VALUES_MAX};
use crate::event::{Priority, TopicPattern};

/// Which topics may be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicMode {
    /// Any.
    #[default]
    Open,
    /// Those that are declared.
    Declared,
}

impl TopicMode {
    /// The mode with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "open" => Some(Self::Open),
            "declared" => Some(Self::Declared),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Declared => "declared",
        }
    }
}

/// What becomes of an event whose `gdpr` does not say `"consent": true`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consent {
    /// It is stored.
    #[default]
    Optional,
    /// It is stored without its data.
    Withhold,
    /// It is refused.
    Require,
}

impl Consent {
    /// The policy with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "optional" => Some(Self::Optional),
            "withhold" => Some(Self::Withhold),
            "require" => Some(Self::Require),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Withhold => "withhold",
            Self::Require => "require",
        }
    }
}

/// A topic that the tenant has declared.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Which topics.
    pub pattern: TopicPattern,
    /// What their data looks like.
    pub schema: Option<Arc<Schema>>,
    /// Of events that name none.
    pub priority: Option<Priority>,
}

/// Everything that a tenant has decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which topics may be written.
    pub topic_mode: TopicMode,
    /// What becomes of events without consent.
    pub consent: Consent,
    /// To which topics that applies.
    pub consent_topics: Vec<TopicPattern>,
    /// The topics that are declared; their schemas count in either mode.
    pub declared: Vec<Declared>,
}

impl Settings {
    /// Whether all schemas together are of a size that may be, with this one instead of what stands for its pattern. Two that
    /// are declared at the same moment may exceed it.
    pub(super) fn have_room_for(&self, declared: &Declaration) -> bool {
        let Some(Ok(new)) = declared.schema.as_ref().map(Size::of) else {
            return true;
        };
        let others = self.declared.iter();
        let others = others.filter(|one| one.pattern != declared.pattern);
        let others = others.filter_map(|one| one.schema.as_ref());
        let all = others.fold(new, |sum, one| sum.and(one.size()));
        all.nodes <= TENANT_VALUES_MAX && all.patterns <= TENANT_PATTERNS_MAX
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topic_mode: TopicMode::Open,
            consent: Consent::Optional,
            consent_topics: vec![TopicPattern::any()],
            declared: Vec::new(),
        }
    }
}
