//! `tidewire revoke`: tokens that end before their time.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde_json::json;

use super::remote::{Remote, explain};

/// Settings of `tidewire revoke`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub struct Args {
    /// One token, by its jti.
    #[arg(long, group = "which", value_name = "ID")]
    pub jti: Option<String>,

    /// All tokens of a subject that were issued until now.
    #[arg(long, group = "which", value_name = "NAME")]
    pub sub: Option<String>,

    /// When the last of these tokens ends by itself (RFC 3339): the revocation ends an hour later. Absent: never.
    #[arg(long, value_name = "TIME")]
    pub until: Option<DateTime<Utc>>,

    /// Take the revocation back: tokens that have not ended count again.
    #[arg(long, conflicts_with = "until")]
    pub undo: bool,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
///
/// # Errors
/// If the server refuses or cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if args.undo {
        return undo(&args).await;
    }
    let mut wanted = serde_json::Map::new();
    for (name, value) in [("jti", &args.jti), ("sub", &args.sub)] {
        if let Some(value) = value {
            wanted.insert(name.into(), json!(value));
        }
    }
    if let Some(until) = args.until {
        wanted.insert("until".into(), json!(until));
    }
    let client = args.remote.client()?;
    client
        .post(&["v1", "revocations"], &wanted.into())
        .await
        .map_err(explain)?;
    eprintln!("Revoked: what is open with it is closed within a second, on every server.");
    Ok(())
}

async fn undo(args: &Args) -> anyhow::Result<()> {
    let by_claim = [("jti", &args.jti), ("sub", &args.sub)];
    let given = by_claim
        .into_iter()
        .find_map(|(claim, value)| value.as_deref().map(|value| (claim, value)));
    let (claim, value) = given.context("name --jti or --sub")?;
    let path = ["v1", "revocations", claim, value];
    args.remote.client()?.delete(&path).await.map_err(explain)?;
    eprintln!("Taken back: tokens that have not ended count again.");
    Ok(())
}
