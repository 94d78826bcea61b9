//! `tidewire audit`: compares what is committed with what a reader has received.
//!
//! # Invariants
//! - What the server has counted decides; events are read again only if the two differ.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::lines::Lines;
use super::output::Output;
use super::remote::{Remote, explain};
use crate::check::Tally;
use crate::client::{Client, Selection, Start};
use crate::event::digest::IdsDigest;
use crate::event::limits::PAGE_EVENTS_MAX;

const HELP: &str = "\
Counts and sums up the ids of what is committed (GET /v1/audit) and of what was received. If they differ, the events are read again and what is \
missing, came twice or is unknown is named, and the exit code is 1. The order is compared then, too: alike in number and digest, both hold the same events, in whatever order.

Example:
  tidewire follow --topics 'deal.*' --after earliest --until-caught-up > deals.ndjson
  tidewire audit  --topics 'deal.*' --after earliest --until \"$(tail -n 1 deals.ndjson | jq -r .cursor)\" --received deals.ndjson";

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
    /// Where the reader began
    #[arg(long, default_value = "earliest", value_name = "CURSOR|earliest")]
    after: String,
    /// How far it has come: the cursor it has kept
    #[arg(long, default_value = "latest", value_name = "CURSOR|latest")]
    until: String,
    /// What it has received: NDJSON of events, or an id a line; - for stdin
    #[arg(long, value_name = "PATH")]
    received: PathBuf,
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
    let received = received(&args).await?;
    let mut own = IdsDigest::default();
    for id in &received {
        own.add(id);
    }
    let (committed, span) = committed(&client, &args).await?;
    let is_same = committed == (own.count, own.to_string());
    let read = if is_same {
        Vec::new()
    } else {
        read(&client, &args, &span).await?
    };
    let expected = if is_same { &received } else { &read };
    let tally = Tally::of(
        expected.iter().map(String::as_str),
        received.iter().map(String::as_str),
    );
    let text = if args.json {
        format!(
            "{:#}\n",
            json!({ "committed": committed.0, "after": span.0, "until": span.1, "difference": tally })
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
            committed.0,
            own.count
        )
    };
    Output::new().write(&text).await?;
    ensure!(
        tally.is_whole() && (is_same || committed.0 == own.count),
        "They differ: {} missing, {} twice, {} unknown, {} out of order. Events that were erased since have other ids; for the rest look at how the reader keeps its cursor.",
        tally.missing.len(),
        tally.duplicated.len(),
        tally.unknown.len(),
        tally.misplaced.len()
    );
    Ok(())
}

/// The ids of a file.
async fn received(args: &Args) -> anyhow::Result<Vec<String>> {
    let lines = match args.received.to_str() {
        Some("-") => Lines::stdin()?,
        _ => Lines::open(&args.received)?,
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

/// Count and digest, and from where to where.
async fn committed(
    client: &Client,
    args: &Args,
) -> anyhow::Result<((u64, String), (String, String))> {
    let (topics, subjects) = (args.topics.join(","), args.subjects.join(","));
    let (mut after, mut until) = (args.after.clone(), args.until.clone());
    let (mut count, mut sum, mut first) = (0_u64, 0_u128, None::<String>);
    loop {
        let mut query = vec![("after", after.as_str()), ("until", until.as_str())];
        query.extend(Some(("topics", topics.as_str())).filter(|(_, text)| !text.is_empty()));
        query.extend(Some(("subjects", subjects.as_str())).filter(|(_, text)| !text.is_empty()));
        let answer = client
            .get(&["v1", "audit"], &query)
            .await
            .map_err(explain)?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let fields = (
            text("after"),
            text("through"),
            text("until"),
            text("digest"),
        );
        let (Some(from), Some(through), Some(end), Some(digest)) = fields else {
            bail!("the server's answer is no audit. Update the server, or this program.");
        };
        count = count.saturating_add(
            answer
                .get("count")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
        );
        sum = sum.wrapping_add(
            u128::from_str_radix(&digest, 16).context("the server's digest cannot be read")?,
        );
        let began = first.get_or_insert(from).clone();
        if answer.get("has_more") != Some(&Value::Bool(true)) {
            return Ok(((count, format!("{sum:032x}")), (began, end)));
        }
        (after, until) = (through, end);
    }
}

/// The ids of all that is committed, up to the end.
async fn read(
    client: &Client,
    args: &Args,
    (after, until): &(String, String),
) -> anyhow::Result<Vec<String>> {
    let selection = Selection {
        topics: args.topics.clone(),
        subjects: args.subjects.clone(),
    };
    let (mut start, mut ids) = (Start::After(after.clone()), Vec::new());
    loop {
        let page = client
            .page(&selection, &start, PAGE_EVENTS_MAX)
            .await
            .map_err(explain)?;
        for event in &page.events {
            let event: Value = serde_json::from_str(event.get())?;
            let text = |name: &str| event.get(name).and_then(Value::as_str);
            // Cursors of one life order as the log does.
            if text("cursor").is_some_and(|cursor| cursor > until.as_str()) {
                return Ok(ids);
            }
            ids.extend(text("id").map(str::to_owned));
        }
        if !page.has_more || page.cursor >= *until {
            return Ok(ids);
        }
        start = Start::After(page.cursor);
    }
}
