//! Starts and stops the postmaster, the process all others of a PostgreSQL descend from.
//!
//! # Invariants
//! - When [`launch`] succeeds the postmaster has answered a query; when it fails there is none. A
//!   caller that stops waiting still holds the child and decides.
//! - It runs in a process group of its own: Ctrl-C at the terminal reaches the server only, which
//!   still needs its database to drain.
//! - Stopping is orderly first (`fast`) and always ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::account::command;
use super::backoff::pause;
use super::cluster::Cluster;
use super::directory::at;
use super::error::EmbeddedError;
use super::{database, log_file, orphan};

/// Recovery after a crash replays at most `max_wal_size`; a slow disk may take minutes for it.
const START_MAX: Duration = Duration::from_mins(10);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long to wait for a dead postmaster's shared memory to be released.
const SHARED_MEMORY_MAX: Duration = Duration::from_secs(30);
const PORT_MOVES_MAX: u32 = 3;
const FAST_STOP: Duration = Duration::from_secs(30);
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);
const STOP_AGAIN: Duration = Duration::from_secs(1);
/// Where the postmaster notes its state in `postmaster.pid`, counted from 0.
const STATUS_LINE: usize = 7;

/// Whether a taken port may be exchanged for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// Nobody knows the port yet.
    MayMove,
    /// Connections and psql lines already name it.
    Stays,
}

/// Starts a postmaster and waits until it answers. Meanwhile it is in `slot` already, so that whoever
/// stops waiting still holds it; after an error `slot` is empty.
pub(super) async fn launch(
    cluster: &mut Cluster,
    slot: &mut Option<Child>,
    port: Port,
) -> Result<(), EmbeddedError> {
    let log = cluster.directory.log();
    let deadline = Instant::now() + SHARED_MEMORY_MAX;
    let mut moves = 0;
    cluster.listens_on_tcp = true;
    loop {
        orphan::clear(cluster).await?;
        log_file::bound(&log).map_err(at("write", &log))?;
        let log_start = log_file::length(&log);
        let child = slot.insert(spawn(cluster)?);
        let Err(status) = wait_until_ready(cluster, child).await else {
            return Ok(());
        };
        // Ended already, unless it took too long.
        let _ = child.kill().await;
        *slot = None;
        let lines = log_file::tail(&log, log_start);
        let is_port_taken = lines.contains("could not bind IPv4 address");
        if lines.contains("pre-existing shared memory block") && Instant::now() < deadline {
            tracing::info!("waiting for the processes of an earlier PostgreSQL to end");
            pause(LOOK_AGAIN * 10).await;
        } else if is_port_taken && port == Port::Stays && cluster.listens_on_tcp {
            // The server itself needs only the socket, whose name stays the same.
            let port = cluster.port;
            tracing::warn!(
                port,
                "the port is taken: no psql over TCP until the next start"
            );
            cluster.listens_on_tcp = false;
        } else if is_port_taken && port == Port::MayMove && moves < PORT_MOVES_MAX {
            moves += 1;
            cluster.port = cluster.directory.choose_port()?;
        } else {
            return Err(EmbeddedError::Start { status, log: lines });
        }
    }
}

/// A child whose start nobody may be waiting for any more: dropped, it is ended, not left behind.
#[derive(Default)]
pub(super) struct Starting(pub(super) Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = self.0.as_mut() {
            // Already gone is as good.
            let _ = child.start_kill();
        }
    }
}

fn spawn(cluster: &Cluster) -> Result<Child, EmbeddedError> {
    let directory = &cluster.directory;
    let log_path = directory.log();
    let log = log_file::open(&log_path).map_err(at("write", &log_path))?;
    let log_too = log.try_clone().map_err(at("write", &log_path))?;
    let program = cluster.installation.program("postgres");
    let mut postgres = command(&program, &cluster.account);
    postgres.arg("-D").arg(directory.cluster());
    set(
        &mut postgres,
        "config_file",
        directory.config_file().as_os_str(),
    );
    set(&mut postgres, "hba_file", directory.hba_file().as_os_str());
    set(&mut postgres, "port", cluster.port.to_string().as_ref());
    let addresses = if cluster.listens_on_tcp {
        "127.0.0.1"
    } else {
        ""
    };
    set(&mut postgres, "listen_addresses", addresses.as_ref());
    set(
        &mut postgres,
        "unix_socket_directories",
        &quoted(&cluster.socket_dir),
    );
    postgres
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(log_too))
        .process_group(0);
    postgres
        .spawn()
        .map_err(|source| EmbeddedError::Spawn { program, source })
}

fn set(command: &mut Command, name: &str, value: &OsStr) {
    let mut setting = OsString::from(name);
    setting.push("=");
    setting.push(value);
    command.arg("-c").arg(setting);
}

/// The setting is a comma-separated list of names; quotes keep commas and blanks in one name.
fn quoted(path: &Path) -> OsString {
    let mut text = OsString::from("\"");
    text.push(path);
    text.push("\"");
    text
}

/// Waits for the first answer. The error is how the attempt ended instead.
async fn wait_until_ready(cluster: &Cluster, child: &mut Child) -> Result<(), String> {
    let started = Instant::now();
    let mut next_progress = PROGRESS_EVERY;
    loop {
        tokio::select! {
            status = child.wait() => return Err(describe(status)),
            answers = answers(cluster) => if answers { return Ok(()) },
        }
        let waited = started.elapsed();
        if waited > START_MAX {
            return Err(format!(
                "it gave no answer within {} s",
                START_MAX.as_secs()
            ));
        }
        if waited > next_progress {
            next_progress = waited + PROGRESS_EVERY;
            tracing::info!(
                waited_s = waited.as_secs(),
                "waiting for PostgreSQL to start"
            );
        }
        tokio::select! {
            status = child.wait() => return Err(describe(status)),
            () = pause(LOOK_AGAIN) => {}
        }
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Asks only once the postmaster has noted in its pid file that it is ready: each question before
/// that would leave lines in its log.
async fn answers(cluster: &Cluster) -> bool {
    let noted = match fs::read_to_string(cluster.directory.cluster().join("postmaster.pid")) {
        Ok(text) => text
            .lines()
            .nth(STATUS_LINE)
            .is_some_and(|status| status.trim() == "ready"),
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    noted && database::answers(cluster).await
}

/// Stops a postmaster: open transactions are rolled back, a checkpoint is written; if that takes too
/// long it ends at once, and the next start recovers from the log.
pub(super) async fn halt(cluster: &Cluster, mut child: Child) {
    for (mode, patience) in [("fast", FAST_STOP), ("immediate", IMMEDIATE_STOP)] {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            // Again and again: a postmaster that has just been started can't be asked yet.
            if !matches!(child.try_wait(), Ok(Some(_)))
                && let Err(error) = pg_ctl_stop(cluster, mode).await
            {
                tracing::warn!(%error, "pg_ctl could not be run");
            }
            if timeout(STOP_AGAIN, child.wait()).await.is_ok() {
                tracing::info!("PostgreSQL has stopped");
                return;
            }
        }
        tracing::warn!(
            mode,
            patience_s = patience.as_secs(),
            "PostgreSQL does not stop"
        );
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "PostgreSQL could not be ended");
    }
}

/// Asks the postmaster of this data directory to stop, without waiting for it. Through `pg_ctl`, as
/// PostgreSQL's own user, since a signal needs a process id that is certain to be the right one.
pub(super) async fn pg_ctl_stop(cluster: &Cluster, mode: &str) -> Result<(), EmbeddedError> {
    let program = cluster.installation.program("pg_ctl");
    let mut pg_ctl = command(&program, &cluster.account);
    pg_ctl.args(["stop", "--no-wait", "--silent", "--mode", mode]);
    pg_ctl.arg("--pgdata").arg(cluster.directory.cluster());
    match pg_ctl.status().await {
        Ok(_) => Ok(()),
        Err(source) => Err(EmbeddedError::Spawn { program, source }),
    }
}
