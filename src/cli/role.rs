//! `tidewire role`: the roles with which a tenant's people and programs use SQL.
//!
//! # Invariants
//! - A password is made here, shown once on stdout, and sent nowhere.

use anyhow::Context as _;
use clap::Subcommand;

use crate::access::Secret;
use crate::event::Tenant;
use crate::pg::Connector;
use crate::pg::tenant_roles::{self, Issue, NewRole};
use crate::tasks::Tasks;

const HELP: &str = "\
A role sees the events of its tenant in the view tidewire.my_events, and of one subject with tidewire.my_subject(); with --write \
it appends with tidewire.append(). Needs a connection that may create roles (see docs/OPERATIONS.md).

Examples:
  tidewire role create acme_bi --tenant acme
  tidewire role create acme_app --tenant acme --write --connections 20
  tidewire role list
  tidewire role drop acme_bi";

/// Settings of `tidewire role`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The database; past a pooler if there is one.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        global = true
    )]
    pub database_url: Option<Secret>,

    /// What to do.
    #[command(subcommand)]
    pub act: Act,
}

/// What `tidewire role` does.
#[derive(Debug, Subcommand)]
pub enum Act {
    /// Make a role and show its password, once.
    Create {
        /// Its name; everybody who may log in to the cluster can see it.
        name: String,
        /// Whose events it sees.
        #[arg(long)]
        tenant: String,
        /// It may append as well.
        #[arg(long)]
        write: bool,
        /// It sees topics under tidewire. as well, such as the log's audit.
        #[arg(long)]
        admin: bool,
        /// How many connections it may have at once.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        connections: i32,
    },
    /// List the roles of all tenants, and by what any of them could get past its tenant.
    List,
    /// End a role: its sessions, its login, and itself.
    Drop {
        /// Its name.
        name: String,
    },
}

/// Runs the command.
///
/// # Errors
/// If the database cannot be reached, or refuses.
pub async fn run(args: Args) -> anyhow::Result<()> {
    crate::telemetry::start("warn", false)?;
    let url = args
        .database_url
        .context("which database? Set DATABASE_URL, or --database-url (the banner of `tidewire serve` shows that of the embedded one)")?;
    let connector = Connector::parse(url.reveal(), &Tasks::new())?;
    let client = connector.connect("role").await?;
    match args.act {
        Act::Create {
            name,
            tenant,
            write,
            admin,
            connections,
        } => {
            Tenant::parse(&tenant).context("--tenant")?;
            let password = data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 24]>());
            let role = NewRole {
                name,
                tenant,
                may_write: write,
                is_admin: admin,
                connections,
            };
            tenant_roles::create(&client, &role, &password).await?;
            println!("password  {password}");
            println!("connect   {}", connector.psql_line(&role.name));
            let issues = tenant_roles::issues(&client).await?;
            warn(issues.iter().filter(|issue| issue.role.is_none()));
            eprintln!("The password is not shown again.");
        }
        Act::List => {
            for role in tenant_roles::list(&client).await? {
                println!(
                    "{}  tenant {}  {}{}  {}",
                    role.name,
                    role.tenant,
                    if role.may_write {
                        "reads and writes"
                    } else {
                        "reads"
                    },
                    if role.is_admin { ", administrator" } else { "" },
                    match (role.may_login, role.connections) {
                        (false, _) => "cannot log in".to_owned(),
                        (true, -1) => "any number of connections".to_owned(),
                        (true, count) => format!("{count} connections"),
                    }
                );
            }
            warn(tenant_roles::issues(&client).await?.iter());
        }
        Act::Drop { name } => {
            if !tenant_roles::drop(&client, &name).await? {
                eprintln!(
                    "The role stays, without login and tenant, since objects depend on it: DROP OWNED and DROP ROLE remove both."
                );
            }
        }
    }
    Ok(())
}

fn warn<'a>(issues: impl Iterator<Item = &'a Issue>) {
    for issue in issues {
        match &issue.role {
            Some(role) => eprintln!("warning: {role}: {}", issue.text),
            None => eprintln!("warning: {}", issue.text),
        }
    }
}
