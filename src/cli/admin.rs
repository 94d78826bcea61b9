//! `tidewire admin`: what operators and administrators do to a running server.

use serde_json::{Value, json};

use super::output::Output;
use super::remote::{Remote, explain};

/// Settings of `tidewire admin`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Have the database asked again at once, after it has failed; for operators.
    ResetBreaker(Remote),
    /// Close sockets on which nothing has happened for a while.
    DropIdle(DropIdle),
    /// Keep a consumer from going on, on whichever server it runs, or let it go on; for operators.
    Consumer(Consumer),
    /// Show which log lines are written, or see more of them for a while; for operators.
    LogLevel(LogLevel),
}

/// Settings of `tidewire admin drop-idle`.
#[derive(Debug, clap::Args)]
pub struct DropIdle {
    /// For how many seconds nothing but heartbeats has passed.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=31_536_000), value_name = "SECONDS")]
    pub idle_s: u32,

    /// Of all tenants; for operators.
    #[arg(long)]
    pub all_tenants: bool,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Settings of `tidewire admin consumer`.
#[derive(Debug, clap::Args)]
pub struct Consumer {
    /// What it is to do.
    #[arg(value_enum)]
    pub action: Action,

    /// Its name, as in `consumers` of `/v1/status`.
    pub name: String,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// What a consumer is to do.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Action {
    /// Take no step, and keep its place.
    Pause,
    /// Go on where it was.
    Resume,
}

/// Settings of `tidewire admin log-level`.
#[derive(Debug, clap::Args)]
pub struct LogLevel {
    /// What is to be written, such as debug or `info,tidewire::log=debug`; absent: it is only shown.
    pub filter: Option<String>,

    /// For how many seconds; then the server's own setting comes back.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "SECONDS", requires = "filter")]
    pub for_s: u32,

    /// The server to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it, and prints the server's answer.
///
/// # Errors
/// If the server refuses or cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let answer = match args.command {
        Command::ResetBreaker(remote) => {
            let path = ["v1", "admin", "breaker", "reset"];
            remote.client()?.post(&path, &Value::Null).await
        }
        Command::DropIdle(args) => {
            let wanted = json!({"idle_s": args.idle_s, "all_tenants": args.all_tenants});
            let path = ["v1", "admin", "sessions", "drop-idle"];
            args.remote.client()?.post(&path, &wanted).await
        }
        Command::Consumer(args) => {
            let action = match args.action {
                Action::Pause => "pause",
                Action::Resume => "resume",
            };
            let path = ["v1", "admin", "consumers", &args.name, action];
            args.remote.client()?.post(&path, &Value::Null).await
        }
        Command::LogLevel(args) => {
            let (client, path) = (args.remote.client()?, ["v1", "admin", "log-level"]);
            match args.filter {
                Some(filter) => {
                    let wanted = json!({"filter": filter, "for_s": args.for_s});
                    client.put(&path, &wanted).await
                }
                None => client.get(&path, &[]).await,
            }
        }
    };
    let answer = answer.map_err(explain)?;
    Output::new().write(&format!("{answer}\n")).await?;
    Ok(())
}
