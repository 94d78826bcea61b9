//! Opens connections to PostgreSQL, each named by its purpose.
//!
//! # Invariants
//! - A connection ends when its client is dropped, when the server goes, or when the tasks stop; it never reconnects by
//!   itself: whoever holds it decides.
//! - Passwords never stand in an error or a log line.

use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use crate::tasks::Tasks;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes sent and not acknowledged for this long end a connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet connection is probed after this time.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why there is no connection. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL does not parse.
    #[error(
        "DATABASE_URL is not a PostgreSQL URL ({0}): write it as postgres://user:password@host:5432/database"
    )]
    Url(tokio_postgres::Error),
    /// The URL asks for TLS.
    #[error(
        "DATABASE_URL asks for TLS (sslmode), which this version cannot speak: use sslmode=disable on a private network"
    )]
    Tls,
    /// The database did not answer in time.
    #[error("the database at {address} did not answer within {} s: is it running, and is the address right?", CONNECT_TIMEOUT.as_secs())]
    Silent {
        /// Host and port, or socket folder.
        address: String,
    },
    /// The database refused, or nothing listens.
    #[error("cannot connect to the database at {address}: {reason}")]
    Refused {
        /// Host and port, or socket folder.
        address: String,
        /// What the database or the system said, and what to do.
        reason: String,
    },
}

/// Opens connections to one database.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Config,
    tasks: Tasks,
}

impl Connector {
    /// Reads a `postgres://` URL.
    ///
    /// # Errors
    /// If it is not one, or demands TLS.
    pub fn parse(url: &str, tasks: &Tasks) -> Result<Self, ConnectError> {
        let mut config: Config = url.parse().map_err(ConnectError::Url)?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(ConnectError::Tls);
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE);
        Ok(Self {
            config,
            tasks: tasks.clone(),
        })
    }

    /// The settings, for a pool.
    #[must_use]
    pub fn config(&self, purpose: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(format!("tidewire {purpose}"));
        config
    }

    /// Where the database is, without user and password.
    #[must_use]
    pub fn address(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}")
    }

    /// How `psql` connects to it as another role, without a password.
    #[must_use]
    pub fn psql_line(&self, role: &str) -> String {
        let database = self.config.get_dbname().unwrap_or("postgres");
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let [host, port, role, database] =
            [host.as_str(), &port.to_string(), role, database].map(shell_word);
        format!("psql -h {host} -p {port} -U {role} -d {database}")
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses.
    pub async fn connect(&self, purpose: &str) -> Result<Client, ConnectError> {
        self.open(purpose, || {}).await
    }

    /// Opens a connection whose notifications call `wake`; so does its end, since whoever waits must look again.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses.
    pub async fn connect_listening(
        &self,
        purpose: &str,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Client, ConnectError> {
        self.open(purpose, wake).await
    }

    async fn open(
        &self,
        purpose: &str,
        wake: impl Fn() + Send + 'static,
    ) -> Result<Client, ConnectError> {
        let config = self.config(purpose);
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls))
            .await
            .map_err(|_| ConnectError::Silent {
                address: self.address(),
            })?;
        let (client, mut connection) = opened.map_err(|error| self.refused(&error))?;
        let purpose = purpose.to_owned();
        self.tasks.spawn_until_stop(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => wake(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(purpose, %error, "database connection ended");
                        break;
                    }
                }
            }
            wake();
        });
        Ok(client)
    }

    fn refused(&self, error: &tokio_postgres::Error) -> ConnectError {
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        let said = error
            .as_db_error()
            .map_or_else(|| root_cause(error), |db| db.message().to_owned());
        let advice = match code {
            Some("28P01" | "28000") => "check user and password in DATABASE_URL, and pg_hba.conf",
            Some("3D000") => "create it first (createdb), or name another one in DATABASE_URL",
            Some("42501") => "GRANT CONNECT on it, or name another role in DATABASE_URL",
            Some("53300") => "the database has no connection left: raise max_connections",
            Some("57P03") => "it is starting up or stopping: try again in a moment",
            Some(_) => "see the database's log",
            None if said.contains("password missing") => {
                "write it into DATABASE_URL: postgres://user:password@host:5432/database"
            }
            None if said.contains("lookup address") => "check the host's name in DATABASE_URL",
            None => "is it running, and are host and port in DATABASE_URL right?",
        };
        ConnectError::Refused {
            address: self.address(),
            reason: format!("{said}; {advice}"),
        }
    }
}

/// A word for a shell, in quotes where it needs them.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
