//! `tidewire demo`: plays a manager with workers against a server, at a rate of one's choice.

use std::time::Duration;

use anyhow::ensure;
use futures_util::{Stream, stream};
use tokio::time::Instant;

use super::deliver::deliver;
use super::output::Output;
use super::progress::Progress;
use super::remote::Remote;
use super::simulation::Simulation;
use crate::client::{Line, pause_until};

/// The part of the play that its natural pace is measured on.
const SAMPLE_MS: u64 = 600_000;

/// Lines that --stdout writes at once.
const PRINT_LINES: usize = 100;

const HELP: &str = "\
Tasks, tool calls, errors, token counts, heartbeats, state and messages, on the topics agent.*. The play depends on the \
seed and the number of workers alone; the rate stretches or squeezes its time. It ends with --duration or Ctrl-C.";

/// Play a manager with workers.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Workers
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000), value_name = "N")]
    agents: u64,
    /// Events a second, on average
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000_000), value_name = "EVENTS_PER_S")]
    rate: u64,
    /// Seconds until the end; without it the play goes on
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "S")]
    duration: Option<u64>,
    /// Which play; a new one each time unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print the events at once, instead of sending them in time
    #[arg(long)]
    stdout: bool,
}

/// Runs the command.
///
/// # Errors
/// If the server cannot be reached or refuses the events.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let seed = args
        .seed
        .unwrap_or_else(|| rand::random_range(0..1_000_000));
    let play = Play::new(&args, seed);
    if args.stdout {
        return print(play).await;
    }
    eprintln!(
        "Playing {} workers at {} events/s against {} (seed {seed}). Ctrl-C ends it.",
        args.agents,
        args.rate,
        client.address()
    );
    let mut progress = Progress::new(None);
    let (tally, _) = deliver(&client, paced(play), &mut progress, false).await?;
    drop(progress);
    println!("{tally}");
    ensure!(
        tally.refused == 0,
        "The server refused {} events, for the reasons above. Use a token that may write the topics agent.*.",
        tally.refused
    );
    Ok(())
}

/// The simulation on the clock of whoever watches it.
struct Play {
    simulation: Simulation,
    /// Events of the sample, for `SAMPLE_MS` of the play.
    pace: u64,
    rate: u64,
    end: Option<Duration>,
    number: u64,
}

impl Play {
    fn new(args: &Args, seed: u64) -> Self {
        let workers = usize::try_from(args.agents).unwrap_or(usize::MAX);
        let simulation = Simulation::new(seed, workers);
        // The sample is played to the end only where that is quick; a large crowd shows its pace sooner.
        let sample = simulation
            .clone()
            .take_while(|played| played.at_ms < SAMPLE_MS);
        let (mut count, mut at_ms) = (0_u64, 1_u64);
        for played in sample.take(200_000) {
            count = count.saturating_add(1);
            at_ms = played.at_ms.max(1);
        }
        let pace = count.saturating_mul(SAMPLE_MS).checked_div(at_ms);
        Self {
            simulation,
            pace: pace.unwrap_or(1),
            rate: args.rate,
            end: args.duration.map(Duration::from_secs),
            number: 0,
        }
    }

    /// When, by the watcher's clock, something at `at_ms` of the play is due.
    fn due(&self, at_ms: u64) -> Duration {
        let events = u128::from(at_ms).saturating_mul(u128::from(self.pace));
        let divisor = u128::from(SAMPLE_MS).saturating_mul(u128::from(self.rate));
        let micros = events.saturating_mul(1_000_000).checked_div(divisor);
        Duration::from_micros(
            micros
                .and_then(|m| u64::try_from(m).ok())
                .unwrap_or(u64::MAX),
        )
    }
}

impl Iterator for Play {
    type Item = (Duration, Line);

    fn next(&mut self) -> Option<(Duration, Line)> {
        let played = self.simulation.next()?;
        let due = self.due(played.at_ms);
        if self.end.is_some_and(|end| due >= end) {
            return None;
        }
        self.number = self.number.saturating_add(1);
        let line = Line {
            number: self.number,
            end: 0,
            event: Ok(played.event.to_string()),
        };
        Some((due, line))
    }
}

/// Each event in its time. A server that falls behind gets what is due as one batch.
fn paced(play: Play) -> impl Stream<Item = Line> + Unpin {
    let start = Instant::now();
    Box::pin(stream::unfold(play, move |mut play| async move {
        let (due, line) = play.next()?;
        // Only where there is something to wait for: what is overdue must be ready at once.
        let moment = start + due;
        if moment > Instant::now() {
            pause_until(moment).await;
        }
        Some((line, play))
    }))
}

async fn print(play: Play) -> anyhow::Result<()> {
    let mut out = Output::new();
    let mut lines = play.filter_map(|(_, line)| line.event.ok()).peekable();
    while lines.peek().is_some() {
        let text: String = lines
            .by_ref()
            .take(PRINT_LINES)
            .flat_map(|t| [t, "\n".to_owned()])
            .collect();
        if !out.write(&text).await? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(rate: u64, duration: u64, agents: u64) -> Play {
        let args = Args {
            remote: Remote {
                url: String::new(),
                token: None,
                ca_file: None,
            },
            agents,
            rate,
            duration: Some(duration),
            seed: None,
            stdout: true,
        };
        Play::new(&args, 5)
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        for (rate, duration, agents) in [(20, 60, 8), (1_000, 30, 50), (3, 300, 1)] {
            let count = play(rate, duration, agents).count();
            let wanted = usize::try_from(rate * duration).unwrap();
            assert!(count.abs_diff(wanted) * 4 < wanted, "{count} for {wanted}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_in_their_time() {
        use futures_util::StreamExt as _;
        let (start, wanted) = (Instant::now(), play(5, 20, 2));
        let mut lines = paced(play(5, 20, 2));
        for (due, _) in wanted {
            lines.next().await.unwrap();
            // Timers are exact to the millisecond.
            assert!(start.elapsed().abs_diff(due) <= Duration::from_millis(1));
        }
        assert!(lines.next().await.is_none());
    }
}
