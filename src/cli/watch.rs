//! `tidewire watch`: of whom a tenant expects to hear, and how often.

use serde_json::{Value, json};

use super::output::Output;
use super::remote::{Remote, explain};

/// Settings of `tidewire watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with watches.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with watches.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Expect a sign of life of every subject within so many seconds: else the log says `agent.stalled`.
    Set(Set),
    /// List the tenant's watches, one JSON document a line; with a name who has stalled.
    List(List),
    /// Remove one, and forget its subjects.
    Remove(Remove),
}

/// Settings of `tidewire watch set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// The watch's name. One that is there is changed.
    pub name: String,

    /// Topic patterns that are signs of life, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub topics: Vec<String>,

    /// How many seconds a subject may give none.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=604_800), value_name = "SECONDS")]
    pub within: u32,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Settings of `tidewire watch list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Whose subjects that have stalled are listed.
    pub name: Option<String>,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Settings of `tidewire watch remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The watch's name.
    pub name: String,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
///
/// # Errors
/// If the server refuses or cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Set(args) => {
            let wanted = json!({ "topics": args.topics, "within_s": args.within });
            let path = ["v1", "watches", args.name.as_str()];
            let client = args.remote.client()?;
            client.put(&path, &wanted).await.map_err(explain)?;
            eprintln!(
                "{} is watched: subjects from their next event on.",
                args.name
            );
            Ok(())
        }
        Command::List(List {
            name: Some(name),
            remote,
        }) => stalled(&remote, &name).await,
        Command::List(List { name: None, remote }) => {
            let answer = remote.client()?.get(&["v1", "watches"], &[]).await;
            write(&answer.map_err(explain)?, "watches").await?;
            Ok(())
        }
        Command::Remove(args) => {
            let path = ["v1", "watches", args.name.as_str()];
            args.remote.client()?.delete(&path).await.map_err(explain)?;
            eprintln!("{} is watched no more.", args.name);
            Ok(())
        }
    }
}

async fn stalled(remote: &Remote, name: &str) -> anyhow::Result<()> {
    let client = remote.client()?;
    let mut after = String::new();
    loop {
        let asked = [("after", after.as_str())];
        let page = client.get(&["v1", "watches", name], &asked).await;
        let page = page.map_err(explain)?;
        let last = write(&page, "stalled").await?;
        let has_more = page.get("has_more").and_then(Value::as_bool);
        let last = last.as_ref().and_then(|one| one.get("subject"));
        match last
            .and_then(Value::as_str)
            .filter(|_| has_more == Some(true))
        {
            Some(last) => last.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

/// A line each; the last of them, unless nobody reads any more.
async fn write(page: &Value, list: &str) -> anyhow::Result<Option<Value>> {
    let mut output = Output::new();
    let listed = page.get(list).and_then(Value::as_array);
    for one in listed.into_iter().flatten() {
        if !output.write(&format!("{one}\n")).await? {
            return Ok(None);
        }
    }
    Ok(listed.and_then(|listed| listed.last()).cloned())
}
