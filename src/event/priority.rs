//! How long an event may wait to be batched, and who is shed first under overload. Priority never reorders.

use serde::{Deserialize, Serialize};

/// An event's priority.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Never waits, shed last.
    Critical,
    /// Waits a little.
    High,
    /// The default.
    #[default]
    Normal,
    /// Waits longest, shed first.
    Low,
}

impl Priority {
    /// The word on the wire and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Critical, Self::High, Self::Normal, Self::Low]
            .into_iter()
            .find(|p| p.as_str() == text)
    }
}
