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
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

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
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }
}

/// One of each priority.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ByPriority<T> {
    critical: T,
    high: T,
    normal: T,
    low: T,
}

impl<T> ByPriority<T> {
    /// What `make` makes for each, the most urgent first.
    pub fn new(mut make: impl FnMut(Priority) -> T) -> Self {
        Self {
            critical: make(Priority::Critical),
            high: make(Priority::High),
            normal: make(Priority::Normal),
            low: make(Priority::Low),
        }
    }

    /// That of one priority.
    #[must_use]
    pub const fn of(&self, priority: Priority) -> &T {
        match priority {
            Priority::Critical => &self.critical,
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    /// That of one priority, to change it.
    pub const fn of_mut(&mut self, priority: Priority) -> &mut T {
        match priority {
            Priority::Critical => &mut self.critical,
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}
