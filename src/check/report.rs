//! What a run has found: as JSON, and for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was measured, with the targets (`target` in the name).
pub type Figures = BTreeMap<String, Value>;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The server does what it must.
    Passed,
    /// It does not.
    Failed,
    /// It was not checked.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "ok   ",
            Self::Failed => "FAIL ",
            Self::Skipped => "skip ",
        })
    }
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `group/what`.
    pub name: String,
    /// What is true if it passed.
    pub claim: String,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took.
    pub took_ms: u64,
    /// What was measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: Figures,
    /// Why it failed, or was not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.outcome, self.name, self.claim)?;
        if !self.figures.is_empty() {
            let figures = self.figures.iter();
            let figures: Vec<_> = figures
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            write!(f, " ({})", figures.join(", "))?;
        }
        for text in [&self.cause, &self.advice].into_iter().flatten() {
            write!(f, "\n      {text}")?;
        }
        Ok(())
    }
}

/// What all of them have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How much was checked.
    #[serde(rename = "type")]
    pub depth: String,
    /// The run: everything it wrote stood under `check.<run>.*`.
    pub run: String,
    /// Whose log it was written into; empty if that could not be found out.
    pub tenant: String,
    /// Whether nothing failed.
    pub passed: bool,
    /// How many checks passed, failed and were skipped.
    pub counts: Counts,
    /// How long all of it took.
    pub took_ms: u64,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Finding>,
}

/// Checks by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The server does what it must.
    pub passed: usize,
    /// It does not.
    pub failed: usize,
    /// Not checked.
    pub skipped: usize,
}

impl Counts {
    /// Counts them.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let count = |outcome| findings.iter().filter(|one| one.outcome == outcome).count();
        Self {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
        }
    }
}

impl fmt::Display for Report {
    /// The last line: people have seen the findings as they came.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            passed,
            failed,
            skipped,
        } = self.counts;
        let verdict = if self.passed { "passed" } else { "FAILED" };
        write!(
            f,
            "{verdict}: {passed} passed, {failed} failed, {skipped} not checked, in {}.{:03} s (run {}, tenant {})",
            self.took_ms / 1_000,
            self.took_ms % 1_000,
            self.run,
            self.tenant
        )
    }
}
