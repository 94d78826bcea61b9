//! `tidewire drill`: a storm of readers that are cut off again and again.
//!
//! # Invariants
//! - No process is ever ended but the one that `--kill-pid` names, once.

use std::time::Duration;

use anyhow::{anyhow, ensure};

use super::advise::Advise as _;
use super::output::Output;
use super::remote::Remote;
use crate::check::drill::{self, Drill};
use crate::check::{Flaw, Wire};

const HELP: &str = "\
Appends numbered events under check.<run>.drill, has N readers follow them, and cuts all their connections every S seconds; each comes \
back at once with the cursor of what it has seen. Recovery is the time from a cut until a reader has everything that was acknowledged. \
Exits with an error if anything was missing, came twice or out of order, or somebody did not come back before the next cut.

Example, with a server that is killed and started again by its supervisor:
  tidewire drill --clients 500 --kill-every 10 --duration 60 --kill-pid \"$(pidof tidewire)\"";

/// Cut off a crowd of readers, again and again
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Readers
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
    clients: u16,
    /// Seconds between two cuts of all connections
    #[arg(long, default_value_t = 5.0, value_parser = seconds, value_name = "S")]
    kill_every: f64,
    /// Seconds until the end
    #[arg(long, default_value_t = 30.0, value_parser = seconds, value_name = "S")]
    duration: f64,
    /// Events a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "EVENTS_PER_S")]
    rate: u32,
    /// How they read
    #[arg(long, default_value = "ws", value_name = "ws|sse")]
    transport: Transport,
    /// With the first cut, also kill this process (SIGKILL): the server, which you see started again
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(2..))]
    kill_pid: Option<u32>,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

/// `--transport`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Transport {
    /// WebSocket.
    Ws,
    /// Server-sent events.
    Sse,
}

/// More than a tenth of a second, less than a day.
fn seconds(text: &str) -> Result<f64, String> {
    let read = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.1..=86_400.0).contains(&read) {
        Ok(read)
    } else {
        Err("must be 0.1 to 86400".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// If the server cannot be reached, or anything was lost.
pub async fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        args.kill_every < args.duration,
        "With --kill-every {} nobody would be cut off within --duration {}. Make it shorter.",
        args.kill_every,
        args.duration
    );
    let wire = match args.transport {
        Transport::Ws => Wire::WebSocket,
        Transport::Sse => Wire::Sse,
    };
    let drill = Drill {
        client: args.remote.client()?,
        wire,
        clients: usize::from(args.clients),
        kill_every: Duration::from_secs_f64(args.kill_every),
        duration: Duration::from_secs_f64(args.duration),
        rate: args.rate,
    };
    let mut killed = Ok(());
    let mut cutting = |count: u32| {
        eprintln!("cut {count}");
        if let Some(pid) = args.kill_pid.filter(|_| count == 1) {
            killed = kill(pid);
        }
    };
    let drilled = drill::run(&drill, &mut cutting).await.map_err(flawed)?;
    killed?;
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(drilled))
    } else {
        format!("{drilled}\n")
    };
    Output::new().write(&text).await?;
    ensure!(
        drilled.is_exercised(),
        "The drill has shown nothing: {} cuts, {} events. Cuts are made every --kill-every seconds, before --duration is over.",
        drilled.cuts,
        drilled.events
    );
    ensure!(
        drilled.passed,
        "The drill failed: see what was lost, and the server's log. If readers were refused, see its limits (--connections-max and others)."
    );
    Ok(())
}

fn flawed(flaw: Flaw) -> anyhow::Error {
    match flaw {
        Flaw::Failed { cause, advice } => anyhow!("{cause}. {advice}"),
        Flaw::Skipped(why) => anyhow!(why),
    }
}

fn kill(pid: u32) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .or_advise(
            "kill cannot be run",
            "Install it (procps), or leave out --kill-pid.",
        )?;
    ensure!(
        status.success(),
        "process {pid} could not be killed. Check --kill-pid, and that the process is yours."
    );
    Ok(())
}
