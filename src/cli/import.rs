//! `tidewire import`: the NDJSON of any feed, mapped field by field. It can be broken off and repeated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, ensure};
use futures_util::{Stream, StreamExt as _};

use super::deliver::{End, deliver};
use super::lines::Lines;
use super::mapping::{Field, Mapping};
use super::output::Output;
use super::pointer::Pointer;
use super::progress::Progress;
use super::remote::Remote;
use crate::client::Line;

const HELP: &str = "\
A FIELD is a JSON pointer into the line if it begins with a slash (/repo/name), else a literal. Interrupt it when you \
like and run the same again: nothing is stored twice within the server's deduplication window (7 days unless set). Bad \
lines are reported with their number and passed over; the exit code is 1 then.

Examples:
  tidewire import agent-runs.ndjson --id /id --subject /run --topic /kind --topic-prefix agent.
  gzip -dc events.json.gz | tidewire import - --topic /type --topic-prefix github. \\
      --id /id --subject /repo/name --time /created_at";

/// Write the lines of an NDJSON file (or of stdin: -) as events.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The file; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    remote: Remote,
    /// Topic. Its value is lower-cased, and what no topic may hold becomes a hyphen
    #[arg(long, value_name = "FIELD")]
    topic: Field,
    /// Put before every topic as it is: "github." for example
    #[arg(long, default_value = "", value_name = "TEXT")]
    topic_prefix: String,
    /// What the event is about; left out where a line has nothing there
    #[arg(long, value_name = "FIELD")]
    subject: Option<Field>,
    /// Id. Unless given it is derived from the event and its line number, so that a file may grow but not be reordered
    #[arg(long, value_name = "POINTER", value_parser = pointer_field)]
    id: Option<Field>,
    /// When it happened: RFC 3339, or a number of seconds, ms, µs or ns since 1970
    #[arg(long, value_name = "FIELD")]
    time: Option<Field>,
    /// Who says so; the token's name unless given
    #[arg(long, value_name = "FIELD")]
    source: Option<Field>,
    /// What the event carries; the whole line unless given
    #[arg(long, value_name = "POINTER", value_parser = Pointer::parse)]
    data: Option<Pointer>,
    /// Stop at the first line that is refused (lines sent together with it may be stored)
    #[arg(long)]
    strict: bool,
    /// Print the events instead of sending them
    #[arg(long)]
    dry_run: bool,
}

/// A literal would give every line the same id.
fn pointer_field(text: &str) -> Result<Field, String> {
    if text.is_empty() {
        return Err("give a JSON pointer such as /id".to_owned());
    }
    Pointer::parse(text).map(Field::Pointer)
}

/// Runs the command.
///
/// # Errors
/// If the file cannot be read, the server cannot be reached, a line was refused, or the user broke it off.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let lines = if args.file == Path::new("-") {
        Lines::stdin()?
    } else {
        Lines::open(&args.file)?
    };
    let mut progress = Progress::new(lines.total);
    let mapping = Arc::new(Mapping {
        topic: args.topic,
        topic_prefix: args.topic_prefix,
        subject: args.subject,
        id: args.id,
        time: args.time,
        source: args.source,
        data: args.data,
        found: Default::default(),
    });
    let of = Arc::clone(&mapping);
    let events = lines.into_stream().map(move |input| of.line(input));
    if args.dry_run {
        return print(events, &progress).await;
    }
    let (tally, end) = deliver(&client, events, &mut progress, args.strict).await?;
    drop(progress);
    println!("{tally}");
    if end == End::Interrupted {
        bail!("Interrupted. Run the same command again to go on, nothing is stored twice.");
    }
    for pointer in mapping.idle_pointers() {
        if tally.stored > 0 {
            eprintln!("No line had anything at {pointer}: check the pointer.");
        }
    }
    match (tally.refused, end) {
        (0, _) => Ok(()),
        (_, End::Refused) => {
            bail!(
                "Stopped at the first refused line (--strict). Correct it and run the same command again."
            )
        }
        (refused, _) => bail!(
            "{refused} lines were refused, for the reasons above. Correct them and run the same command again, nothing is stored twice."
        ),
    }
}

async fn print(
    mut events: impl Stream<Item = Line> + Unpin,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut out = Output::new();
    let mut refused = 0_u64;
    while let Some(line) = events.next().await {
        match line.event {
            Ok(text) => {
                if !out.write(&format!("{text}\n")).await? {
                    return Ok(());
                }
            }
            Err(problem) => {
                refused = refused.saturating_add(1);
                progress.say(&format!("line {}: {problem}", line.number));
            }
        }
    }
    ensure!(
        refused == 0,
        "{refused} lines cannot be mapped, for the reasons above. Correct them, or the options, and run this again."
    );
    Ok(())
}
