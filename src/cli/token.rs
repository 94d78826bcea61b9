//! `tidewire token`.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::access::jwt::{self, Claims};
use crate::access::{Role, Secret};
use crate::config::Database;
use crate::event::{Label, Tenant, TopicPattern};

/// Settings of `tidewire token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose events.
    #[arg(long, default_value = "dev")]
    pub tenant: String,

    /// The credential's name: the source of events that name none.
    #[arg(long, default_value = "developer")]
    pub name: String,

    /// What it is for.
    #[arg(long, value_enum, default_value = "admin")]
    pub role: Role,

    /// Topic patterns it may read, separated by commas.
    #[arg(long, default_value = "*", value_delimiter = ',')]
    pub read: Vec<String>,

    /// Topic patterns it may write, separated by commas.
    #[arg(long, default_value = "*", value_delimiter = ',')]
    pub write: Vec<String>,

    /// How many hours it lasts.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub hours: u64,

    /// The server's secret; absent: the development secret in the data directory.
    #[arg(long, env = "TIDEWIRE_JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<Secret>,

    /// Where the development secret is.
    #[command(flatten)]
    pub database: Database,
}

/// Prints a token.
///
/// # Errors
/// If there is no secret, or a name or pattern is not one.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let secret = match &args.jwt_secret {
        Some(secret) => secret.clone(),
        None => crate::app::development_secret(&args.database)?,
    };
    Tenant::parse(&args.tenant).context("--tenant")?;
    Label::parse(&args.name).context("--name")?;
    for pattern in args
        .read
        .iter()
        .chain(&args.write)
        .filter(|text| !text.is_empty())
    {
        TopicPattern::parse(pattern).with_context(|| format!("the topic pattern {pattern:?}"))?;
    }
    let given = |patterns: &[String]| {
        patterns
            .iter()
            .filter(|text| !text.is_empty())
            .cloned()
            .collect()
    };
    let claims = Claims {
        sub: args.name.clone(),
        exp: expiry(Duration::from_secs(args.hours.saturating_mul(3_600)))?,
        tenant: args.tenant.clone(),
        role: args.role,
        read: given(&args.read),
        write: given(&args.write),
    };
    println!("{}", jwt::issue(&secret, &claims)?);
    Ok(())
}

/// Seconds since 1970, `lasting` from now.
///
/// # Errors
/// If the clock stands before 1970.
pub fn expiry(lasting: Duration) -> anyhow::Result<u64> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("this machine's clock stands before 1970")?;
    Ok(now.saturating_add(lasting).as_secs())
}
