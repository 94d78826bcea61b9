//! The embedded PostgreSQL: what the server runs on when no `DATABASE_URL` is given. A private
//! cluster in the data directory, started and stopped with the server.
//!
//! # Invariants
//! - One server per data directory, by a lock that ends with the process.
//! - Nothing is spawned and no environment variable is read here: the caller does both.
//! - `fsync` stays on. Killing the server or PostgreSQL loses nothing that was committed.
//! - A server that was killed leaves PostgreSQL running; the next start stops it and starts afresh.
//! - Only loopback TCP with a password, and a socket in a folder closed to others.
//!
//! ```no_run
//! # async fn example(config: tidewire::pg::embedded::EmbeddedConfig)
//! # -> Result<(), tidewire::pg::embedded::EmbeddedError> {
//! use tidewire::pg::embedded::Embedded;
//! use tokio_util::sync::CancellationToken;
//!
//! let shutdown = CancellationToken::new(); // cancelled once the server has drained
//! let mut embedded = Embedded::start(config).await?;
//! println!("{}", embedded.psql_hint());
//! embedded.supervise(shutdown).await; // in a task of its own
//! embedded.stop().await;
//! # Ok(())
//! # }
//! ```

mod account;
mod backoff;
mod cluster;
mod database;
mod directory;
mod error;
mod installation;
mod log_file;
mod orphan;
mod postmaster;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::backoff::{Backoff, pause};
use self::cluster::Cluster;
pub use self::error::EmbeddedError;
use self::postmaster::{Port, Starting, halt, launch};

/// How often the size of PostgreSQL's log is looked at.
const LOG_CHECK_EVERY: Duration = Duration::from_mins(1);

/// Where the embedded PostgreSQL finds its programs and keeps its data.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Holds the cluster, its log, its lock and the password file.
    pub data_dir: PathBuf,
    /// Folder of `postgres`, `initdb` and `pg_ctl`. Given, no other is looked at.
    pub postgres_bin: Option<PathBuf>,
    /// Where `script/setup` puts `postgresql-17`.
    pub cache_dir: PathBuf,
}

/// A running embedded PostgreSQL.
///
/// Dropped without [`Embedded::stop`], it goes on running until the next start on its data directory.
#[derive(Debug)]
pub struct Embedded {
    cluster: Cluster,
    /// The postmaster; `None` after it has ended and until it is started again.
    child: Option<Child>,
    started: Instant,
}

impl Embedded {
    /// Finds the programs, locks the data directory, creates the cluster if need be, starts it and
    /// waits until the database `tidewire` with TimescaleDB is there.
    ///
    /// # Errors
    /// Whatever keeps it from running, as a sentence that says what to do.
    pub async fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let mut cluster = Cluster::open(&config).await?;
        let mut starting = Starting::default();
        launch(&mut cluster, &mut starting.0, Port::MayMove).await?;
        if let Err(error) = database::prepare(&cluster).await {
            if let Some(child) = starting.0.take() {
                halt(&cluster, child).await;
            }
            return Err(error);
        }
        tracing::info!(
            postgres.major = cluster.installation.major,
            postgres.port = cluster.port,
            directory = %cluster.directory.path().display(),
            "the embedded PostgreSQL is ready"
        );
        Ok(Self {
            cluster,
            child: starting.0.take(),
            started: Instant::now(),
        })
    }

    /// For the server itself: over the socket, as a superuser, without a password. Stays the same
    /// until [`Embedded::stop`].
    #[must_use]
    pub fn connection_url(&self) -> String {
        self.cluster.connection_url()
    }

    /// A command line to paste into a shell, by the user the server runs as.
    #[must_use]
    pub fn psql_hint(&self) -> String {
        self.cluster.psql_hint()
    }

    /// Restarts PostgreSQL whenever it ends, until `shutdown`. The caller runs this in a task.
    pub async fn supervise(&mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut log_check = interval(LOG_CHECK_EVERY);
        log_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Some(child) = self.child.as_mut() else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.restart(&mut backoff) => continue,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = log_check.tick() => self.bound_log(),
                status = child.wait() => {
                    let status = status.map_or_else(|e| e.to_string(), |status| status.to_string());
                    tracing::warn!(status, "PostgreSQL has ended; starting it again");
                    backoff.ran_for(self.started.elapsed());
                    self.child = None;
                }
            }
        }
    }

    /// One attempt, after the delay that is due.
    async fn restart(&mut self, backoff: &mut Backoff) {
        pause(backoff.next()).await;
        self.started = Instant::now();
        match launch(&mut self.cluster, &mut self.child, Port::Stays).await {
            Ok(()) => tracing::info!("PostgreSQL runs again"),
            Err(error) => tracing::error!(%error, "PostgreSQL could not be started again"),
        }
    }

    fn bound_log(&self) {
        if let Err(error) = log_file::bound(&self.cluster.directory.log()) {
            tracing::warn!(%error, "PostgreSQL's log could not be shortened");
        }
    }

    /// Stops PostgreSQL: in good order, or at once if that takes longer than 30 s.
    pub async fn stop(self) {
        if let Some(child) = self.child {
            halt(&self.cluster, child).await;
        }
    }
}
