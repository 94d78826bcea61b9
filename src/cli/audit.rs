//! `tidewire audit`: compares what is committed with what a reader has received, or a consumer has passed.
//!
//! # Invariants
//! - What the server has counted decides; events are read again only if the two differ.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::lines::Lines;
use super::output::Output;
use super::remote::{Remote, explain};
use crate::check::Tally;
use crate::client::{Client, IdsDigest, Selection, Span, Start, pause};
use crate::event::limits::PAGE_EVENTS_MAX;

/// Between two questions how far a consumer has come.
const AGAIN: Duration = Duration::from_millis(250);
/// So many of those that are missing the server names in one answer.
const NAMED_MAX: usize = 100;

const HELP: &str = "\
Counts and sums up the ids of what is committed (GET /v1/audit) and of what was received. If they differ, the events are read again and what is \
missing, came twice or is unknown is named, and the exit code is 1. With --consumer: what is committed after the consumer's place, and what it can \
never get since retention has removed it. The order is compared then, too: alike in number and digest, both hold the same events, in whatever order.

Example:
  tidewire follow --topics 'deal.*' --after earliest --until-caught-up > deals.ndjson
  tidewire audit  --topics 'deal.*' --after earliest --until \"$(tail -n 1 deals.ndjson | jq -r .cursor)\" --received deals.ndjson
  tidewire audit  --topics 'agent.heartbeat.*' --consumer watch";

/// Compare what is committed with what was received
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Topic patterns, as the reader had them; all unless given
    #[arg(long, value_delimiter = ',', value_name = "PATTERN,…")]
    topics: Vec<String>,
    /// Subjects, as the reader had them; all unless given
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT,…")]
    subjects: Vec<String>,
    /// Where the reader began; `earliest` unless given, or where the consumer stands
    #[arg(long, value_name = "CURSOR|earliest")]
    after: Option<String>,
    /// How far it has come: the cursor it has kept
    #[arg(long, default_value = "latest", value_name = "CURSOR|latest")]
    until: String,
    /// What it has received: NDJSON of events, or an id a line; - for stdin
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "consumer",
        conflicts_with = "consumer"
    )]
    received: Option<PathBuf>,
    /// Compare with how far a consumer of the server has come (`watch`), as an administrator
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// How long a consumer may take to pass what is committed
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3_600))]
    wait_s: u64,
    /// The differences as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If they differ, or either cannot be read.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let selection = Selection {
        topics: args.topics.clone(),
        subjects: args.subjects.clone(),
    };
    match (&args.consumer, &args.received) {
        (Some(name), _) => passed(&client, &args, &selection, name).await,
        (None, Some(path)) => {
            let received = received(path).await?;
            compared(&client, &args, &selection, &received).await
        }
        (None, None) => {
            bail!("Say what it is to be compared with: --received FILE or --consumer NAME.")
        }
    }
}

/// What is committed, compared with what was received.
async fn compared(
    client: &Client,
    args: &Args,
    selection: &Selection,
    received: &[String],
) -> anyhow::Result<()> {
    let mut own = IdsDigest::default();
    for id in received {
        own.add(id);
    }
    let span = Span {
        selection,
        after: Some(args.after.as_deref().unwrap_or("earliest")),
        until: &args.until,
        consumer: None,
    };
    let committed = client.committed(&span).await.map_err(explain)?;
    let span = (committed.after.as_str(), committed.until.as_str());
    let is_same = (committed.count, &committed.digest) == (own.count, &own.to_string());
    let read = if is_same {
        Vec::new()
    } else {
        read(client, selection, span).await?
    };
    let expected = if is_same { received } else { &read };
    let tally = Tally::of(
        expected.iter().map(String::as_str),
        received.iter().map(String::as_str),
    );
    let text = if args.json {
        format!(
            "{:#}\n",
            json!({ "committed": committed.count, "after": span.0, "until": span.1, "difference": tally })
        )
    } else {
        let lists = [
            ("missing", &tally.missing),
            ("twice", &tally.duplicated),
            ("unknown", &tally.unknown),
            ("out of order", &tally.misplaced),
        ];
        let named = lists
            .iter()
            .flat_map(|(what, ids)| ids.iter().map(move |id| format!("{what}: {id}\n")));
        format!(
            "{}{} committed, {} received\n",
            named.collect::<String>(),
            committed.count,
            own.count
        )
    };
    Output::new().write(&text).await?;
    ensure!(
        tally.is_whole() && (is_same || committed.count == own.count),
        "They differ: {} missing, {} twice, {} unknown, {} out of order. Events that were erased since have other ids; for the rest look at how the reader keeps its cursor.",
        tally.missing.len(),
        tally.duplicated.len(),
        tally.unknown.len(),
        tally.misplaced.len()
    );
    Ok(())
}

/// What is committed, compared with what a consumer has passed. One that runs may take a moment.
async fn passed(
    client: &Client,
    args: &Args,
    selection: &Selection,
    name: &str,
) -> anyhow::Result<()> {
    let span = Span {
        selection,
        after: args.after.as_deref(),
        until: &args.until,
        consumer: Some(name),
    };
    let mut committed = client.committed(&span).await.map_err(explain)?;
    let (after, until) = (committed.after.clone(), committed.until.clone());
    let patience = tokio::time::Instant::now() + Duration::from_secs(args.wait_s);
    let consumer = loop {
        let consumer = committed.consumer.take().unwrap_or_default();
        let is_coming = !consumer.missing.is_empty() && !consumer.is_paused;
        if !is_coming || tokio::time::Instant::now() >= patience {
            break consumer;
        }
        pause(AGAIN).await;
        // The same events again.
        let span = Span {
            after: Some(&after),
            until: &until,
            ..span.clone()
        };
        let lost_before = consumer.lost_before;
        committed = client.committed(&span).await.map_err(explain)?;
        if let Some(consumer) = &mut committed.consumer {
            // What was lost stays lost, however far it has come since.
            consumer.lost_before = consumer.lost_before.take().or(lost_before);
        }
    };
    let lost = consumer.lost_before.as_deref();
    let text = if args.json {
        let consumer = json!({
            "name": consumer.name, "cursor": consumer.cursor, "is_paused": consumer.is_paused,
            "missing": consumer.missing, "lost_before": lost,
        });
        let report = json!({ "committed": committed.count, "after": after, "until": until, "consumer": consumer });
        format!("{report:#}\n")
    } else {
        let named = consumer.missing.iter().map(|id| format!("missing: {id}\n"));
        let lost = lost.map_or(String::new(), |place| {
            format!("lost: what it had not passed before {place} is no longer kept\n")
        });
        format!(
            "{lost}{}{} committed after its place{}\n",
            named.collect::<String>(),
            committed.count,
            if consumer.is_paused {
                ", and it is paused"
            } else {
                ""
            }
        )
    };
    Output::new().write(&text).await?;
    ensure!(
        consumer.missing.is_empty() && lost.is_none(),
        "The consumer {name} has not passed all: {} missing{}{}. /v1/status says whether it is paused and which server runs it; --topics leaves out what is none of its business.",
        consumer.missing.len(),
        if consumer.missing.len() >= NAMED_MAX {
            " or more"
        } else {
            ""
        },
        if lost.is_some() {
            ", and some lost to retention"
        } else {
            ""
        }
    );
    Ok(())
}

/// The ids of a file.
async fn received(path: &Path) -> anyhow::Result<Vec<String>> {
    let lines = match path.to_str() {
        Some("-") => Lines::stdin()?,
        _ => Lines::open(path)?,
    };
    let mut lines = lines.into_stream();
    let mut ids = Vec::new();
    while let Some(line) = lines.next().await {
        let text = match line.text {
            Ok(text) => text,
            Err(why) => bail!(
                "line {} of what was received {why}. Give NDJSON of events, or an id a line.",
                line.number
            ),
        };
        let text = text.trim();
        if !text.starts_with('{') {
            ids.push(text.to_owned());
            continue;
        }
        let event: Value = serde_json::from_str(text).with_context(|| {
            format!(
                "line {} of what was received is cut short. Remove it, and run this again",
                line.number
            )
        })?;
        let id = event.get("id").and_then(Value::as_str);
        ids.push(
            id.with_context(|| format!("line {} has no id", line.number))?
                .to_owned(),
        );
    }
    Ok(ids)
}

/// The ids of all that is committed, up to the end.
async fn read(
    client: &Client,
    selection: &Selection,
    (after, until): (&str, &str),
) -> anyhow::Result<Vec<String>> {
    let (mut start, mut ids) = (Start::After(after.to_owned()), Vec::new());
    loop {
        let page = client
            .page(selection, &start, PAGE_EVENTS_MAX)
            .await
            .map_err(explain)?;
        for event in &page.events {
            let event: Value = serde_json::from_str(event.get())?;
            let text = |name: &str| event.get(name).and_then(Value::as_str);
            // Cursors of one life order as the log does.
            if text("cursor").is_some_and(|cursor| cursor > until) {
                return Ok(ids);
            }
            ids.extend(text("id").map(str::to_owned));
        }
        if !page.has_more || page.cursor.as_str() >= until {
            return Ok(ids);
        }
        start = Start::After(page.cursor);
    }
}
