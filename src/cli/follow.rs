//! `tidewire follow`: events as NDJSON on stdout, from a place in the log on.
//!
//! # Invariants
//! - A cursor is saved after the events before it were written and flushed: who resumes sees each at least once.
//! - Only whole lines are written, but for a kill.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt as _, Stdout};
use tokio::time::Instant;

use super::advise::Advise as _;
use super::cursor_file::{CursorFile, is_cursor};
use super::interrupt::Interrupt;
use super::remote::{Remote, explain};
use crate::client::{Client, Selection, Start, Step, pause_until};
use crate::event::limits::PAGE_EVENTS_MAX;

/// After Ctrl-C, how long a reader of stdout that has stopped reading may keep this program.
const LAST_WRITE: Duration = Duration::from_secs(2);

const HELP: &str = "\
Broken connections are mended without gap or repetition. With --cursor-file the next run goes on where this one ended: \
a killed one may repeat the events of its last 0.2 s (each has its id and cursor), and never leaves one out. The file \
vouches for what was written to stdout, not for what the next program of a pipe did with it.

Examples:
  tidewire follow --topics 'deal.stage.*,*.task.failed' --cursor-file deals.cursor >> deals.ndjson
  tidewire follow --after earliest --until-caught-up | jq -r .topic | sort | uniq -c";

/// Print events as NDJSON, one a line, and go on as they come.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Topic patterns, such as 'deal.stage.*,*.task.failed'; all unless given
    #[arg(long, value_delimiter = ',', value_name = "PATTERN,…")]
    topics: Vec<String>,
    /// Subjects; all unless given
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT,…")]
    subjects: Vec<String>,
    /// Begin after this cursor, with the earliest event, or with those to come
    #[arg(
        long,
        default_value = "latest",
        value_name = "CURSOR|earliest|latest",
        conflicts_with = "since"
    )]
    after: String,
    /// Begin at this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Begin where the last run with this file ended (before --after and --since), and keep it up to date
    #[arg(long, value_name = "PATH")]
    cursor_file: Option<PathBuf>,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Stop at what is the end of the log now
    #[arg(long)]
    until_caught_up: bool,
}

/// Runs the command.
///
/// # Errors
/// If the server cannot be reached at first or refuses, or stdout or the cursor file cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let mut start = args.start()?;
    let mut file = None;
    if let Some(path) = &args.cursor_file {
        let (opened, cursor) = CursorFile::open(path)?;
        start = cursor.map_or(start, Start::After);
        file = Some(opened);
    }
    let selection = Selection {
        topics: args.topics,
        subjects: args.subjects,
    };
    let mut printer = Printer {
        out: tokio::io::stdout(),
        left: args.limit.unwrap_or(u64::MAX),
        file,
        interrupt: Interrupt::new()?,
        is_interrupted: false,
    };
    let followed = if args.until_caught_up {
        catch_up(&client, &selection, start, &mut printer).await
    } else {
        follow(&client, selection, start, &mut printer).await
    };
    // Also after an error: what was printed was printed.
    let saved = printer.save();
    followed.and(saved)
}

async fn follow(
    client: &Client,
    selection: Selection,
    start: Start,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let mut following = client.follow(selection, start);
    while printer.left > 0 {
        let due = printer.file.as_ref().and_then(CursorFile::due);
        let step = tokio::select! {
            () = printer.interrupt.wait() => return Ok(()),
            () = pause_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                printer.save()?;
                continue;
            }
            step = following.next() => step.map_err(explain)?,
        };
        let flow = match step {
            Some(Step::Events { events, cursor }) => printer.print(&events, cursor).await?,
            Some(Step::Moved { cursor }) => printer.print(&[], cursor).await?,
            Some(Step::Retrying { why, delay }) => {
                eprintln!("{why}; trying again in {:.1} s", delay.as_secs_f32());
                Flow::Go
            }
            None => bail!(
                "The server has ended this stream for good. Look into its log, and run this again."
            ),
        };
        if flow == Flow::Stop {
            return Ok(());
        }
    }
    Ok(())
}

/// By pages, since the end of a page needs no waiting.
async fn catch_up(
    client: &Client,
    selection: &Selection,
    mut start: Start,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    let end = client.page(selection, &Start::Latest, 1).await;
    let end = end.map_err(explain)?.cursor;
    if start == Start::Latest {
        start = Start::After(end.clone());
    }
    while printer.left > 0 {
        let page = client.page(selection, &start, PAGE_EVENTS_MAX);
        let Some(page) = printer.interrupt.or(page).await else {
            return Ok(());
        };
        let page = page.map_err(explain)?;
        // Cursors order as the log does.
        let is_end = !page.has_more || page.cursor >= end;
        start = Start::After(page.cursor.clone());
        if printer.print(&page.events, page.cursor).await? == Flow::Stop || is_end {
            return Ok(());
        }
        let due = printer.file.as_ref().and_then(CursorFile::due);
        if due.is_some_and(|due| due <= Instant::now()) {
            printer.save()?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

struct Printer {
    out: Stdout,
    left: u64,
    file: Option<CursorFile>,
    interrupt: Interrupt,
    is_interrupted: bool,
}

#[derive(Deserialize)]
struct Placed {
    cursor: String,
}

impl Printer {
    /// Writes the events, and only then takes note of the cursor.
    async fn print(&mut self, events: &[Box<RawValue>], cursor: String) -> anyhow::Result<Flow> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (printed, rest) = events.split_at_checked(left).unwrap_or((events, &[]));
        let cursor = match (rest, printed.last()) {
            ([], _) => cursor,
            (_, Some(last)) => {
                let placed: Placed = serde_json::from_str(last.get()).or_advise(
                    "an event came without its cursor",
                    "Update the server, or leave out --limit.",
                )?;
                placed.cursor
            }
            (_, None) => return Ok(Flow::Stop),
        };
        if !printed.is_empty() {
            let text: String = printed.iter().flat_map(|e| [e.get(), "\n"]).collect();
            match self.write(&text).await {
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe => return Ok(Flow::Stop),
                other => other.or_advise(
                    "stdout cannot be written",
                    "Check where it leads (a full disk?), and run this again.",
                )?,
            }
        }
        let count = u64::try_from(printed.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(count);
        if let Some(file) = &mut self.file {
            file.keep(cursor);
        }
        Ok(if self.is_interrupted {
            Flow::Stop
        } else {
            Flow::Go
        })
    }

    /// Writes in full, so that no line is torn; after Ctrl-C not for ever.
    async fn write(&mut self, text: &str) -> io::Result<()> {
        let write = async {
            self.out.write_all(text.as_bytes()).await?;
            self.out.flush().await
        };
        let mut write = std::pin::pin!(write);
        tokio::select! {
            biased;
            written = &mut write => written,
            () = self.interrupt.wait() => match tokio::time::timeout(LAST_WRITE, write).await {
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
                Ok(written) => {
                    self.is_interrupted = true;
                    written
                }
            },
        }
    }

    fn save(&mut self) -> anyhow::Result<()> {
        self.file.as_mut().map_or(Ok(()), CursorFile::save)
    }
}

impl Args {
    fn start(&self) -> anyhow::Result<Start> {
        if let Some(time) = &self.since {
            chrono::DateTime::parse_from_rfc3339(time).or_advise(
                format_args!("--since {time} is no RFC 3339 time"),
                "Write it as 2026-11-20T10:00:00Z.",
            )?;
            return Ok(Start::Since(time.clone()));
        }
        Ok(match self.after.as_str() {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            cursor => {
                ensure!(
                    is_cursor(cursor),
                    "--after {cursor} is no cursor. Give earliest, latest, or a cursor as an event or an answer of the server holds it."
                );
                Start::After(cursor.to_owned())
            }
        })
    }
}
