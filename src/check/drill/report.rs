//! What a drill has cost its readers.

use std::fmt;

use serde::Serialize;

use super::{Drill, Seen};
use crate::check::live::Wire;
use crate::check::timing::Spread;

/// See the module.
#[derive(Debug, Clone, Serialize)]
pub struct Drilled {
    /// The run: events stood under `check.<run>.drill`.
    pub run: String,
    /// Whether somebody was cut off, nothing was lost, came twice or out of order, and everybody came back.
    pub passed: bool,
    /// How they read.
    pub transport: &'static str,
    /// How many read.
    pub clients: usize,
    /// How often all connections were cut.
    pub cuts: u32,
    /// Events that were acknowledged.
    pub events: u64,
    /// Deliveries of all readers.
    pub delivered: u64,
    /// Deliveries that did not come.
    pub missing: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came after a later event.
    pub misplaced: u64,
    /// From a cut until a reader had everything again.
    pub recovery: Spread,
    /// Cuts after which a reader had not everything before the next one, or the end.
    pub unrecovered: u64,
    /// Jain's index of what each had when writing ended: 1 if all had as much, 1/n if one had all.
    pub fairness_delivered: f64,
    /// Jain's index of the readers' mean recovery times.
    pub fairness_recovery: f64,
    /// What the one who had least had when writing ended, and the one who had most.
    pub delivered_least_most: (u64, u64),
    /// Times a reader was refused, or a connection broke that was not cut here.
    pub failures: u64,
    /// Why, one of the last times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Appends that were sent again.
    pub write_retries: u64,
    /// Events of an append that was never acknowledged.
    pub unanswered: u64,
    /// Whether what was written has been erased.
    pub is_erased: bool,
}

impl Drilled {
    pub(super) fn of(drill: &Drill, run: &str, events: u64, seen: &[Seen]) -> Self {
        let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).fold(0, u64::saturating_add);
        let in_time = || seen.iter().map(|one| one.delivered_in_time);
        let recoveries = seen.iter().flat_map(|one| one.recoveries.iter().copied());
        let means = seen
            .iter()
            .filter(|one| !one.recoveries.is_empty())
            .map(|one| {
                let all: f64 = one
                    .recoveries
                    .iter()
                    .map(std::time::Duration::as_secs_f64)
                    .sum();
                all / float(u64::try_from(one.recoveries.len()).unwrap_or(u64::MAX))
            });
        Self {
            run: run.to_owned(),
            passed: false,
            transport: match drill.wire {
                Wire::Sse => "sse",
                Wire::WebSocket => "ws",
            },
            clients: drill.clients,
            cuts: 0,
            events,
            delivered: sum(|one| one.delivered),
            missing: sum(|one| one.missing),
            duplicated: sum(|one| one.duplicated),
            misplaced: sum(|one| one.misplaced),
            recovery: Spread::of(recoveries.collect()),
            unrecovered: sum(|one| one.unrecovered),
            fairness_delivered: jain(in_time().map(float)),
            fairness_recovery: jain(means),
            delivered_least_most: (
                in_time().min().unwrap_or_default(),
                in_time().max().unwrap_or_default(),
            ),
            failures: sum(|one| one.failures),
            last_failure: seen.iter().find_map(|one| one.last_failure.clone()),
            write_retries: 0,
            unanswered: 0,
            is_erased: false,
        }
    }

    /// With its verdict.
    pub(super) const fn judged(mut self) -> Self {
        let lost = self
            .missing
            .saturating_add(self.duplicated)
            .saturating_add(self.misplaced);
        let is_whole = lost == 0 && self.unrecovered == 0 && self.unanswered == 0;
        self.passed = is_whole && self.is_exercised();
        self
    }

    /// Whether there was a storm at all: somebody was cut off, and there was something to miss.
    #[must_use]
    pub const fn is_exercised(&self) -> bool {
        self.cuts > 0 && self.events > 0
    }
}

fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// `(Σx)² / (n Σx²)`; 1 of nothing.
fn jain(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum, squares) = values.fold((0.0, 0.0, 0.0), |(count, sum, squares), value| {
        (
            count + 1.0,
            sum + value,
            f64::mul_add(value, value, squares),
        )
    });
    if squares > 0.0 {
        (sum * sum / (count * squares) * 10_000.0_f64).round() / 10_000.0
    } else {
        1.0
    }
}

impl fmt::Display for Drilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.delivered_least_most;
        let rows = [
            (
                "readers",
                format!(
                    "{} ({}), cut {} times",
                    self.clients, self.transport, self.cuts
                ),
            ),
            (
                "events",
                format!("{}, {} deliveries", self.events, self.delivered),
            ),
            (
                "lost",
                format!(
                    "{} missing, {} twice, {} out of order",
                    self.missing, self.duplicated, self.misplaced
                ),
            ),
            (
                "recovery",
                format!(
                    "p50 {} ms, p95 {} ms, max {} ms ({} times; {} not before the next cut)",
                    self.recovery.p50_ms,
                    self.recovery.p95_ms,
                    self.recovery.max_ms,
                    self.recovery.count,
                    self.unrecovered
                ),
            ),
            (
                "fairness",
                format!(
                    "{} of deliveries ({least} to {most} when writing ended), {} of recovery times",
                    self.fairness_delivered, self.fairness_recovery
                ),
            ),
            (
                "failures",
                format!(
                    "{} of readers, {} appends sent again, {} events unanswered",
                    self.failures, self.write_retries, self.unanswered
                ),
            ),
        ];
        for (name, text) in rows {
            writeln!(f, "{name:<9} {text}")?;
        }
        if let Some(why) = &self.last_failure {
            writeln!(f, "{:<9} {why}", "")?;
        }
        if !self.is_erased {
            writeln!(
                f,
                "{:<9} events of check.{}.* stay until retention takes them",
                "", self.run
            )?;
        }
        f.write_str(match (self.passed, self.is_exercised()) {
            (true, _) => "passed",
            (false, true) => "FAILED",
            (false, false) => "NOT EXERCISED: nobody was cut off, or nothing was stored",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_jains() {
        let index = |values: &[f64]| jain(values.iter().copied());
        assert!((index(&[5.0, 5.0, 5.0]) - 1.0).abs() < 1e-9);
        assert!((index(&[4.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
        assert!((index(&[]) - 1.0).abs() < 1e-9);
    }
}
