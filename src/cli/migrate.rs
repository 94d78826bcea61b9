//! `tidewire migrate`.

use crate::access::Secret;
use crate::pg::Connector;
use crate::pg::schema::{self, Plan};
use crate::tasks::Tasks;

/// Settings of `tidewire migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// PostgreSQL 15 to 18 with TimescaleDB; the embedded database is migrated by `serve`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Secret,

    /// Create the cluster's roles as well (see sql/roles/roles.sql); needs CREATEROLE.
    #[arg(long)]
    pub roles: bool,

    /// Apply every definition again, also those that are recorded as applied: somebody has changed one by hand.
    #[arg(long)]
    pub definitions: bool,
}

/// Applies migrations and definitions.
///
/// # Errors
/// If the database cannot be reached, lacks something, or a statement fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Who is waited for.
    crate::telemetry::start("warn", false)?;
    let connector = Connector::parse(args.database_url.reveal(), &Tasks::new())?;
    let mut client = connector.connect("migrate").await?;
    if args.roles {
        schema::create_roles(&client).await?;
    }
    let plan = Plan {
        everything: args.definitions,
        ..Plan::default()
    };
    let versions = schema::apply(&mut client, plan).await?;
    println!(
        "the schema is up to date (PostgreSQL {}, TimescaleDB {})",
        versions.postgres, versions.timescale
    );
    Ok(())
}
