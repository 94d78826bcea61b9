//! What may be the matter with the database: it is away, or what is written fails while it is read.
//!
//! # Invariants
//! - What a batch has found is a hint; that the database is away only the tail can say, which asks it all the time (`breaker`).

/// What is the matter while it is not closed, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is heard of the database.
    Away,
    /// It answers, and can be read; what is written fails.
    WritesFail,
}

impl Trouble {
    /// The word in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::WritesFail => "writes_fail",
        }
    }

    /// What is the matter, as the middle of a sentence.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Away => "the database does not answer",
            Self::WritesFail => "the database answers, but what is written fails",
        }
    }
}

/// What a batch has found out of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It was there for it, whatever it said of it.
    There,
    /// It answers, but cannot write.
    Failing,
    /// It has not answered.
    Away,
}
