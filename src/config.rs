//! The settings: each an environment variable and a flag of the same name.
//!
//! # Invariants
//! - The only reader of the environment. A bad value stops the start with a sentence.
//! - `docs/OPERATIONS.md` and `.env.example` list every setting with its default; a test compares.

mod administration;
mod breaker;
mod credentials;
mod drain;
mod limits;
mod load;
mod memory;
mod observation;
mod privacy;
mod tls;
mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

pub use self::breaker::Breaker;
pub use self::drain::Drain;
pub use self::limits::Limits;
pub use self::load::Load;
pub use self::memory::Memory;
pub use self::observation::Observation;
pub use self::traces::Traces;
pub use administration::Administration;
pub use credentials::Credentials;
pub use privacy::Privacy;

use crate::access::Secret;
use crate::event::limits as bounds;
use crate::log::wakeup::NotifyMode;

pub use tls::Tls;

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// PostgreSQL 15 to 18 with TimescaleDB; absent: the embedded database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,

    /// A direct connection for LISTEN when `DATABASE_URL` goes through a pooler.
    #[arg(
        long = "listen-database-url",
        env = "TIDEWIRE_LISTEN_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub listen_database_url: Option<Secret>,

    /// Where the embedded database and the development secret live [default: /var/lib/tidewire for root, else
    /// ~/.local/share/tidewire].
    #[arg(long, env = "TIDEWIRE_DATA_DIR", value_name = "PATH")]
    pub data_dir: Option<PathBuf>,

    /// Folder with the programs of PostgreSQL for the embedded database [default: what script/setup provides, else
    /// what the machine has].
    #[arg(long, env = "TIDEWIRE_POSTGRES_BIN", value_name = "PATH")]
    pub postgres_bin: Option<PathBuf>,

    /// Where script/setup keeps what it fetched [default: /var/cache/tidewire for root, else ~/.cache/tidewire].
    #[arg(long, env = "TIDEWIRE_CACHE_DIR", value_name = "PATH")]
    pub cache_dir: Option<PathBuf>,
}

/// Settings of `tidewire serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Address and port to listen on.
    #[arg(
        long,
        env = "TIDEWIRE_LISTEN",
        default_value = "127.0.0.1:8080",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// How the way to clients is encrypted.
    #[command(flatten)]
    pub tls: Tls,

    /// How callers are known.
    #[command(flatten)]
    pub credentials: Credentials,

    /// Origins whose web pages may use the server, as <https://app.example>, separated by commas; * for all. Its own may
    /// always.
    #[arg(
        long,
        env = "TIDEWIRE_ALLOWED_ORIGINS",
        value_delimiter = ',',
        value_parser = origin,
        value_name = "ORIGINS"
    )]
    pub allowed_origins: Vec<String>,

    /// When writers notify this server: auto (when it sleeps), always, never (it polls).
    #[arg(long, env = "TIDEWIRE_NOTIFY", value_enum, default_value = "auto")]
    pub notify: NotifyMode,

    /// Do not apply migrations and definitions at the start; the schema must be this version's.
    #[arg(long, env = "TIDEWIRE_NO_MIGRATE")]
    pub no_migrate: bool,

    /// Remove whole chunks of events older than so many days; absent: keep everything.
    #[arg(long, env = "TIDEWIRE_RETENTION_DAYS", value_parser = clap::value_parser!(i32).range(1..=36_500), value_name = "DAYS")]
    pub retention_days: Option<i32>,

    /// What the log says of where data come from.
    #[command(flatten)]
    pub privacy: Privacy,

    /// How much memory events and readers take.
    #[command(flatten)]
    pub memory: Memory,

    /// Largest data of one event in bytes, at most 1 MiB (the table's own bound).
    #[arg(long, env = "TIDEWIRE_DATA_BYTES_MAX", default_value_t = bounds::DATA_BYTES_MAX, value_parser = up_to_1_mib, value_name = "BYTES")]
    pub data_bytes_max: usize,

    /// How much a tenant and a credential may ask.
    #[command(flatten)]
    pub limits: Limits,

    /// How much is done at once.
    #[command(flatten)]
    pub load: Load,

    /// When the database is left alone.
    #[command(flatten)]
    pub breaker: Breaker,

    /// How the server ends.
    #[command(flatten)]
    pub drain: Drain,

    /// How the server is watched.
    #[command(flatten)]
    pub observation: Observation,

    /// Where spans go.
    #[command(flatten)]
    pub traces: Traces,

    /// Who wrote and read what is written into the tenant's log as often as this; 0: not at all.
    #[arg(long, env = "TIDEWIRE_AUDIT_INTERVAL_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600), value_name = "SECONDS")]
    pub audit_interval_s: u64,

    /// What is logged: error, warn, info, debug, or per module as in `tidewire::log=debug`.
    #[arg(
        long,
        env = "TIDEWIRE_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// Log lines as JSON.
    #[arg(long, env = "TIDEWIRE_LOG_JSON")]
    pub log_json: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned()
    })
}

fn origin(text: &str) -> Result<String, String> {
    let parsed = url::Url::parse(text).map(|url| url.origin().ascii_serialization());
    if text == "*" || parsed.is_ok_and(|origin| origin == text) {
        return Ok(text.to_owned());
    }
    Err("write an origin as browsers do, scheme, host and port alone, such as https://app.example or http://localhost:5173".to_owned())
}

fn number(text: &str, from: usize, to: usize) -> Result<usize, String> {
    match text.replace('_', "").parse::<usize>() {
        Ok(number) if (from..=to).contains(&number) => Ok(number),
        Ok(_) => Err(format!("must be {from} to {to}")),
        Err(_) => Err(format!("must be a whole number from {from} to {to}")),
    }
}

fn up_to_1_mib(text: &str) -> Result<usize, String> {
    number(text, 1_024, 1 << 20)
}

/// The folders of a user: `/var/…` for root, below the home folder for others.
#[derive(Debug, Clone)]
pub struct Folders {
    /// See [`Database::data_dir`].
    pub data: PathBuf,
    /// See [`Database::cache_dir`].
    pub cache: PathBuf,
}

/// There is no home folder.
#[derive(Debug, thiserror::Error)]
#[error("there is no home folder (HOME is not set): set TIDEWIRE_DATA_DIR and TIDEWIRE_CACHE_DIR")]
pub struct NoHome;

impl Database {
    /// The folders in force.
    ///
    /// # Errors
    /// If a default is needed and there is no home folder.
    pub fn folders(&self) -> Result<Folders, NoHome> {
        let data = self.data_dir.clone().map_or_else(
            || default_folder("/var/lib", "XDG_DATA_HOME", ".local/share"),
            Ok,
        )?;
        let cache = self.cache_dir.clone().map_or_else(
            || default_folder("/var/cache", "XDG_CACHE_HOME", ".cache"),
            Ok,
        )?;
        Ok(Folders { data, cache })
    }
}

fn default_folder(of_root: &str, variable: &str, below_home: &str) -> Result<PathBuf, NoHome> {
    if is_root() {
        return Ok(PathBuf::from(of_root).join("tidewire"));
    }
    if let Some(folder) = std::env::var_os(variable).filter(|text| !text.is_empty()) {
        return Ok(PathBuf::from(folder).join("tidewire"));
    }
    let home = std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or(NoHome)?;
    Ok(home.join(below_home).join("tidewire"))
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of our own process, as the kernel shows it.
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const OPERATIONS: &str = include_str!("../docs/OPERATIONS.md");
    const EXAMPLE: &str = include_str!("../.env.example");

    /// Each setting's variable, with its flag and its default; no default is an empty text.
    fn settings() -> BTreeMap<String, (String, String)> {
        let command = Serve::augment_args(clap::Command::new("serve"));
        let setting = |arg: &clap::Arg| {
            let texts = arg.get_default_values().iter();
            let default: Vec<_> = texts.map(|text| text.to_string_lossy()).collect();
            let flag = format!("--{}", arg.get_long()?);
            let variable = arg.get_env()?.to_string_lossy().into_owned();
            // A switch says so by its action alone.
            let is_switch = matches!(arg.get_action(), clap::ArgAction::SetTrue);
            let default = if is_switch {
                "false".into()
            } else {
                default.join(",")
            };
            Some((variable, (flag, default)))
        };
        let count = command.get_arguments().count();
        let settings: BTreeMap<_, _> = command.get_arguments().filter_map(setting).collect();
        assert_eq!(
            settings.len(),
            count,
            "every setting is a flag and a variable"
        );
        settings
    }

    #[test]
    fn the_manual_lists_every_setting_with_its_default() {
        let table = OPERATIONS.split_once("## Settings").unwrap().1;
        let table = table.split_once("\n## ").unwrap().0;
        let mut listed = BTreeMap::new();
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let default = if cells[3] == "none" { "" } else { cells[3] };
            listed.insert(
                cells[2].to_owned(),
                (cells[1].to_owned(), default.to_owned()),
            );
        }
        assert_eq!(listed, settings());
    }

    #[test]
    fn the_example_lists_every_setting_with_its_default() {
        let is_variable = |name: &&str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let listed: BTreeMap<_, _> = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix("# ")?.split_once('='))
            .filter(|(name, _)| is_variable(name))
            .map(|(name, default)| (name.to_owned(), default.to_owned()))
            .collect();
        let wanted: BTreeMap<_, _> = settings()
            .into_iter()
            .map(|(variable, (_, default))| (variable, default))
            .collect();
        assert_eq!(listed, wanted);
    }
}
