//! `tidewire check quick|performance|comprehensive`: the named checks, from outside or by the server itself.
//!
//! # Invariants
//! - What was written is erased also if Ctrl-C ends it.
//! - What fails has a cause and advice, what was not checked a reason; the exit code is non-zero if anything failed.

use std::pin::pin;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::check::Args;
use super::interrupt::Interrupt;
use super::output::Output;
use super::remote::explain;
use crate::check::{self, Depth, Finding, Outcome, Plan, Progress, Report};
use crate::client::{Client, Secret};

/// Runs them.
///
/// # Errors
/// If one fails, or the server cannot be asked.
pub async fn run(args: &Args, depth: Depth) -> anyhow::Result<()> {
    let client = client(args, args.token.as_ref())?;
    let mut seen = Seen { is_json: args.json };
    let report = if args.by_server {
        by_server(&client, depth, &mut seen).await?
    } else {
        // Whether there is a server at all is no finding.
        client
            .get(&["v1", "events"], &[("topics", "check.*"), ("limit", "1")])
            .await
            .map_err(explain)?;
        let mut plan = Plan::new(depth, client.clone());
        if args.other_token.is_some() {
            plan.other = Some(self::client(args, args.other_token.as_ref())?);
        }
        interruptible(&plan, &mut |progress| {
            if let Progress::Ended { finding } = progress {
                seen.tell(finding);
            }
        })
        .await?
    };
    let text = if args.json {
        format!("{:#}\n", json!(report))
    } else {
        format!("{report}\n")
    };
    Output::new().write(&text).await?;
    let failed = report
        .checks
        .iter()
        .filter(|one| one.outcome == Outcome::Failed);
    let failed: Vec<&str> = failed.map(|one| one.name.as_str()).collect();
    ensure!(
        report.passed,
        "{} checks failed: {}. The report names the cause of each and what to do.",
        failed.len(),
        failed.join(", ")
    );
    Ok(())
}

/// Ctrl-C ends the checks and has what was written erased; a second one does not wait for that.
async fn interruptible(
    plan: &Plan,
    tell: &mut (dyn FnMut(&Progress<'_>) + Send),
) -> anyhow::Result<Report> {
    let mut interrupt = Interrupt::new()?;
    let mut running = pin!(check::run(plan, tell));
    if let Some(report) = interrupt.or(&mut running).await {
        return Ok(report);
    }
    eprintln!("interrupted: erasing what was written (once more to leave it)");
    plan.stop.cancel();
    let report = interrupt.or(&mut running).await;
    report.context("interrupted twice: what was written stays until retention takes it")
}

fn client(args: &Args, token: Option<&crate::access::Secret>) -> anyhow::Result<Client> {
    let token = token.map(|token| Secret::new(token.reveal()));
    Client::trusting(&args.url, token.as_ref(), args.ca_file.as_deref()).map_err(explain)
}

/// Findings as they come.
struct Seen {
    is_json: bool,
}

impl Seen {
    fn tell(&self, finding: &Finding) {
        if self.is_json {
            eprintln!("{finding}");
        } else {
            println!("{finding}");
        }
    }
}

async fn by_server(client: &Client, depth: Depth, seen: &mut Seen) -> anyhow::Result<Report> {
    let wanted = json!({ "type": depth.as_str() });
    let lines = client.post_lines(&["v1", "validate"], &wanted, depth.time_max());
    let mut lines = lines.await.map_err(explain)?;
    while let Some(mut line) = lines.next().await.map_err(explain)? {
        if let Some(report) = line.get_mut("report").map(Value::take) {
            return serde_json::from_value(report).context("the server's report cannot be read");
        }
        if let Some(finding) = line.get_mut("finding").map(Value::take) {
            let finding: Finding =
                serde_json::from_value(finding).context("the server's finding cannot be read")?;
            seen.tell(&finding);
        }
    }
    anyhow::bail!(
        "the server has ended its answer without a report: it is stopping, or its log says why"
    )
}
