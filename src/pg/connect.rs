//! Opens connections to PostgreSQL, each named by its purpose.
//!
//! # Invariants
//! - A connection ends when its client is dropped, when the server goes, or when the tasks stop; it never reconnects by
//!   itself: whoever holds it decides.
//! - Passwords never stand in an error or a log line.
//! - Every connection is encrypted as the URL asks for (see `tls`).

use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config};

use super::advice::{advice, root_cause};
use super::shortage::{Resource, Shortages};
use super::tls::{self, Mode, Tls, TlsError};
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
    /// The URL names no database.
    #[error(
        "DATABASE_URL names no host: write it as postgres://user:password@host:5432/database, or unset it to use the embedded database"
    )]
    NoHost,
    /// TLS cannot be as the URL asks for.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    tls: Tls,
    tasks: Tasks,
    shortages: Shortages,
}

impl Connector {
    /// Reads a `postgres://` URL.
    ///
    /// # Errors
    /// If it is not one, names no host, or TLS cannot be as it asks for.
    pub fn parse(url: &str, tasks: &Tasks) -> Result<Self, ConnectError> {
        let (url, mut demand) = tls::split(url)?;
        let mut config: Config = url.parse().map_err(ConnectError::Url)?;
        // Only a URL's parameters were looked at; of a list of words the driver knows the mode.
        match config.get_ssl_mode() {
            SslMode::Disable => demand.mode = Mode::Disable,
            SslMode::Require if demand.mode == Mode::Prefer => demand.mode = Mode::Require,
            _ => {}
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConnectError::NoHost);
        }
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(is_local) {
            // As libpq has it: what never leaves the machine is not encrypted, whatever the mode.
            demand.mode = Mode::Disable;
        }
        let tls = Tls::new(demand)?;
        config
            .ssl_mode(tls.ssl_mode())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE);
        Ok(Self {
            config,
            tls,
            tasks: tasks.clone(),
            shortages: Shortages::default(),
        })
    }

    /// The same, which takes note there of what the database has run out of.
    #[must_use]
    pub fn noting(mut self, shortages: &Shortages) -> Self {
        self.shortages = shortages.clone();
        self
    }

    /// What the database has run out of.
    #[must_use]
    pub const fn shortages(&self) -> &Shortages {
        &self.shortages
    }

    /// The settings, for a pool.
    #[must_use]
    pub fn config(&self, purpose: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(format!("tidewire {purpose}"));
        config
    }

    /// TLS as the URL asks for it, for a pool.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// The tasks that connections belong to.
    #[must_use]
    pub const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Asks the database to end what runs over a connection of this connector. Nobody is told whether it does: that shows
    /// in the connection's own answer. Takes as long as connecting may.
    pub async fn cancel(&self, token: &CancelToken) {
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, token.cancel_query(self.tls())).await;
        if let Ok(Err(error)) = asked {
            tracing::debug!(%error, "the database could not be asked to end a statement");
        }
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
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(self.tls()))
            .await
            .map_err(|_| ConnectError::Silent {
                address: self.address(),
            })?;
        let (client, mut connection) = opened.map_err(|error| self.refused(&error))?;
        self.shortages.is_over(Resource::Connections);
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
        self.shortages.note(error);
        let cause = std::error::Error::source(error);
        if let Some(fault) = cause.and_then(|cause| cause.downcast_ref::<TlsError>()) {
            return ConnectError::Refused {
                address: self.address(),
                reason: fault.to_string(),
            };
        }
        let said = error
            .as_db_error()
            .map_or_else(|| root_cause(error), |db| db.message().to_owned());
        let advice = advice(error, &said, self.config.get_ssl_mode());
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
