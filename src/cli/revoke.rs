//! `tidewire revoke`: tokens that end before their time.

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

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
///
/// # Errors
/// If the server refuses or cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
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
