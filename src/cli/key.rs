//! `tidewire key`: API keys, created, listed and revoked.

use std::time::SystemTime;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::output::Output;
use super::remote::{Remote, explain};
use crate::access::{ApiKey, Grant, Role, Secret, ledger};
use crate::event::{Label, Tenant, TopicPattern};
use crate::pg::{Connector, schema};
use crate::tasks::Tasks;

/// Settings of `tidewire key`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with keys.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with keys.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create one, and print it: it is never shown again.
    Create(Box<Create>),
    /// List the tenant's keys, one JSON document a line.
    List(Remote),
    /// Revoke one: what is open with it is closed within a second.
    Revoke(Revoke),
}

/// Settings of `tidewire key create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The key's name: the source of events that name none.
    #[arg(long)]
    pub name: String,

    /// What it is for.
    #[arg(long, value_enum, default_value = "agent")]
    pub role: Role,

    /// Topic patterns it may read, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub read: Vec<String>,

    /// Topic patterns it may write, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub write: Vec<String>,

    /// After how many days it ends; absent: never.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=36_500), value_name = "DAYS")]
    pub days: Option<u16>,

    /// Create it in this database, without asking a server, as its operator may: that is how the first one comes about.
    /// Without a URL it is that of `DATABASE_URL`, which keeps its password out of the list of processes.
    #[arg(long, value_name = "URL", num_args = 0..=1, requires = "tenant")]
    pub in_database: Option<Option<Secret>>,

    /// The database of --in-database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,

    /// Whose key it is; only with --in-database, since a server knows it from the token.
    #[arg(long, requires = "in_database")]
    pub tenant: Option<String>,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Settings of `tidewire key revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The key's id: what stands between the underscores of `tw_…_…`.
    pub id: String,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
///
/// # Errors
/// If the server or the database refuses or cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create(args) => create(&args).await,
        Command::List(remote) => list(&remote).await,
        Command::Revoke(args) => {
            let path = ["v1", "api-keys", args.id.as_str()];
            args.remote.client()?.delete(&path).await.map_err(explain)?;
            eprintln!("{} is revoked.", args.id);
            Ok(())
        }
    }
}

async fn create(args: &Create) -> anyhow::Result<()> {
    let lasting = args.days.map(|days| TimeDelta::days(days.into()));
    let expires_at = lasting
        .and_then(|lasting| DateTime::<Utc>::from(SystemTime::now()).checked_add_signed(lasting));
    let key = if let (Some(url), Some(tenant)) = (&args.in_database, &args.tenant) {
        let url = url.as_ref().or(args.database_url.as_ref());
        let url = url.context("--in-database needs a URL, or DATABASE_URL in the environment")?;
        create_in_database(url, tenant, args, expires_at).await?
    } else {
        let wanted = json!({
            "name": args.name, "role": args.role, "read": args.read, "write": args.write, "expires_at": expires_at,
        });
        let client = args.remote.client()?;
        let answer = client
            .post(&["v1", "api-keys"], &wanted)
            .await
            .map_err(explain)?;
        let key = answer.get("key").and_then(Value::as_str);
        key.context("the server answered without a key: do its version and this program's fit?")?
            .to_owned()
    };
    Output::new().write(&format!("{key}\n")).await?;
    eprintln!(
        "Keep it: it is not shown again. `tidewire key list` shows its id, `tidewire key revoke` ends it."
    );
    Ok(())
}

async fn create_in_database(
    url: &Secret,
    tenant: &str,
    args: &Create,
    expires_at: Option<DateTime<Utc>>,
) -> anyhow::Result<String> {
    let patterns = |texts: &[String]| -> anyhow::Result<Vec<TopicPattern>> {
        let parse = |text: &String| {
            TopicPattern::parse(text).with_context(|| format!("the topic pattern {text:?}"))
        };
        texts.iter().map(parse).collect()
    };
    let grant = Grant {
        tenant: Tenant::parse(tenant).context("--tenant")?,
        name: Label::parse(&args.name).context("--name")?,
        role: args.role,
        read: patterns(&args.read)?,
        write: patterns(&args.write)?,
        expires_at: expires_at.and_then(|at| u64::try_from(at.timestamp()).ok()),
    };
    let client = Connector::parse(url.reveal(), &Tasks::new())?
        .connect("key")
        .await?;
    schema::verify(&client).await?;
    let row = client.query_one("SELECT session_user::text", &[]).await?;
    let key = ApiKey::generate();
    ledger::create_key(&client, &key, &grant, row.try_get(0)?).await?;
    Ok(key.reveal().reveal().to_owned())
}

async fn list(remote: &Remote) -> anyhow::Result<()> {
    let (client, mut output) = (remote.client()?, Output::new());
    let mut after = String::new();
    loop {
        let page = client
            .get(&["v1", "api-keys"], &[("after", after.as_str())])
            .await
            .map_err(explain)?;
        let keys = page
            .get("api_keys")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        for key in &keys {
            if !output.write(&format!("{key}\n")).await? {
                return Ok(());
            }
        }
        let last = keys
            .last()
            .and_then(|key| key.get("id"))
            .and_then(Value::as_str);
        let has_more = page.get("has_more").and_then(Value::as_bool);
        match last.filter(|_| has_more == Some(true)) {
            Some(last) => last.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}
