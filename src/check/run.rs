//! Runs the checks one after the other, tells of each, and cleans up.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flaw::Flaw;
use super::list::{CHECKS, Depth};
use super::performance::Load;
use super::probe::Probe;
use super::report::{Counts, Figures, Finding, Outcome, Report};
use crate::client::Client;

/// How long it may take to see to it that what is written goes by itself.
const PREPARE_MAX: Duration = Duration::from_secs(2);

/// What is to be checked, and with whose credentials.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How much.
    pub depth: Depth,
    /// The credential in whose tenant it runs.
    pub client: Client,
    /// A credential of another tenant.
    pub other: Option<Client>,
    /// How much load the checks of time make.
    pub load: Load,
    /// Whether the tenant is there for checks alone, and the credential its administrator: whatever a run that was killed has left then
    /// goes by retention.
    pub is_reserved: bool,
    /// Cancelled, no further check begins, and what was written is erased.
    pub stop: CancellationToken,
}

impl Plan {
    /// What `depth` says.
    #[must_use]
    pub fn new(depth: Depth, client: Client) -> Self {
        Self {
            depth,
            client,
            other: None,
            load: Load::of(depth),
            is_reserved: false,
            stop: CancellationToken::new(),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "progress", rename_all = "lowercase")]
pub enum Progress<'a> {
    /// A check begins.
    Begun {
        /// Which.
        name: &'a str,
        /// The how manieth, from 1.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// One has ended.
    Ended {
        /// What it has found.
        finding: &'a Finding,
    },
}

/// Runs them. Never longer than the depth says, and not without cleaning up.
pub async fn run(plan: &Plan, tell: &mut (dyn FnMut(&Progress<'_>) + Send)) -> Report {
    let began = Instant::now();
    let depth = plan.depth;
    let until = began + depth.time_max().saturating_sub(depth.cleanup_max());
    let probe = Probe::new(plan);
    let chosen: Vec<_> = CHECKS.iter().filter(|check| check.is_of(depth)).collect();
    let of = chosen.len().saturating_add(1);
    // Before anything is written.
    let prepared = within(until.min(began + PREPARE_MAX), probe.prepare()).await;
    let mut checks = Vec::with_capacity(of);
    for (number, check) in (1..).zip(chosen) {
        let name = check.name;
        tell(&Progress::Begun { name, number, of });
        let mut figures = Figures::new();
        let started = Instant::now();
        let outcome = if plan.stop.is_cancelled() {
            Err(Flaw::Skipped("the run was interrupted".to_owned()))
        } else {
            let checking = within(until, (check.run)(&probe, &mut figures));
            let checked = plan.stop.run_until_cancelled(checking).await;
            checked.unwrap_or_else(|| Err(interrupted()))
        };
        let finding = finding((name, check.claim), started, figures, outcome);
        tell(&Progress::Ended { finding: &finding });
        checks.push(finding);
    }
    let (name, claim) = ("cleanup", "what was written is erased");
    tell(&Progress::Begun {
        name,
        number: of,
        of,
    });
    let (mut figures, started) = (Figures::new(), Instant::now());
    let cleaned = within(began + depth.time_max(), probe.clean_up(&mut figures)).await;
    let outcome = prepared.and(cleaned);
    let finding = finding((name, claim), started, figures, outcome);
    tell(&Progress::Ended { finding: &finding });
    checks.push(finding);
    let counts = Counts::of(&checks);
    Report {
        depth: depth.as_str().to_owned(),
        run: probe.run().to_owned(),
        tenant: probe.tenant().await,
        passed: counts.failed == 0,
        counts,
        took_ms: millis(began.elapsed()),
        checks,
    }
}

fn interrupted() -> Flaw {
    Flaw::failed(
        "the run was interrupted",
        "What was written is erased. Run it again for a verdict.",
    )
}

async fn within(until: Instant, check: impl Future<Output = Result<(), Flaw>>) -> Result<(), Flaw> {
    if Instant::now() >= until {
        return Err(Flaw::failed(
            "the time was up before this began",
            "See which checks took long: the server is slow, or does not answer.",
        ));
    }
    tokio::time::timeout_at(until, check)
        .await
        .unwrap_or_else(|_| {
            Err(Flaw::failed(
                "it did not end in time",
                "The server is slow, or does not answer: GET /v1/status and its log say more.",
            ))
        })
}

fn finding(
    (name, claim): (&str, &str),
    started: Instant,
    figures: Figures,
    outcome: Result<(), Flaw>,
) -> Finding {
    let (outcome, cause, advice) = match outcome {
        Ok(()) => (Outcome::Passed, None, None),
        Err(Flaw::Failed { cause, advice }) => (Outcome::Failed, Some(cause), Some(advice)),
        Err(Flaw::Skipped(why)) => (Outcome::Skipped, Some(why), None),
    };
    Finding {
        name: name.to_owned(),
        claim: claim.to_owned(),
        outcome,
        took_ms: millis(started.elapsed()),
        figures,
        cause,
        advice,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
