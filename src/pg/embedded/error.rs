//! What can keep the embedded PostgreSQL from running. Every text is a sentence for the person who
//! started the server and says what to do about it.
//!
//! # Invariants
//! - No variant carries a password or a connection string.

use std::io;
use std::path::PathBuf;

/// Why the embedded PostgreSQL cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Neither the machine nor the cache folder has a usable installation.
    #[error(
        "no PostgreSQL 15 to 18 with TimescaleDB 2.18 or later was found ({looked_at}): run \
         script/setup, or set DATABASE_URL to a server that has it"
    )]
    NoPostgres {
        /// Every folder looked at, each with what it lacks.
        looked_at: String,
    },

    /// The data belongs to a major version that is not installed.
    #[error(
        "the data in {} was made by PostgreSQL {made_by}, and only {found} is here: install \
         PostgreSQL {made_by} with TimescaleDB, or set TIDEWIRE_DATA_DIR to another folder",
        directory.display()
    )]
    OtherMajor {
        /// The cluster's folder.
        directory: PathBuf,
        /// Major version written in the folder.
        made_by: String,
        /// Major versions found on this machine.
        found: String,
    },

    /// Another process holds the lock.
    #[error(
        "another tidewire uses this data directory ({}): stop it, or set TIDEWIRE_DATA_DIR to \
         another folder",
        .0.display()
    )]
    InUse(PathBuf),

    /// The data directory cannot be created, entered or written by the server itself.
    #[error(
        "cannot {action} {}: {source}; see to permissions and free space there, or set \
         TIDEWIRE_DATA_DIR to another folder",
        path.display()
    )]
    Directory {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// PostgreSQL refuses root, and the user it drops to cannot enter the data directory.
    #[error(
        "PostgreSQL runs as the user {user}, who cannot enter {}: set TIDEWIRE_DATA_DIR to a \
         folder that every user may enter, such as one under /var/lib",
        path.display()
    )]
    NotTraversable {
        /// The unprivileged user.
        user: String,
        /// The data directory.
        path: PathBuf,
    },

    /// The programs lie where the unprivileged user cannot run them.
    #[error(
        "PostgreSQL runs as the user {user}, who cannot run {}: set TIDEWIRE_CACHE_DIR to a folder \
         that every user may enter and run script/setup again",
        path.display()
    )]
    NotExecutable {
        /// The unprivileged user.
        user: String,
        /// The program.
        path: PathBuf,
    },

    /// Started as root on a machine without a user to drop to.
    #[error(
        "PostgreSQL refuses to run as root and there is neither a user postgres nor nobody: start \
         tidewire as another user"
    )]
    NoUnprivilegedUser,

    /// The folder for the socket exists and is somebody else's.
    #[error(
        "{} belongs to somebody else: remove it, or set TIDEWIRE_DATA_DIR to a shorter path so \
         that it is not needed",
        .0.display()
    )]
    ForeignSocketDirectory(PathBuf),

    /// A program could not be started at all.
    #[error("{} could not be run: {source}; run script/setup", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// `initdb` gave up.
    #[error(
        "initdb could not create a database in {}: put right what it names, and start again\n{output}",
        directory.display()
    )]
    Initdb {
        /// The data directory.
        directory: PathBuf,
        /// Its last lines.
        output: String,
    },

    /// The postmaster ended before it accepted connections.
    #[error(
        "PostgreSQL did not start ({status}): put right what its log names, and start again\n{log}"
    )]
    Start {
        /// Exit status, or what else ended the attempt.
        status: String,
        /// The last lines of its log.
        log: String,
    },

    /// An earlier postmaster of this data directory would not stop.
    #[error(
        "an earlier PostgreSQL (process {pid}) still uses this data directory and does not stop: \
         end it, and start again"
    )]
    Orphan {
        /// Its process id.
        pid: u32,
    },

    /// It runs, but refuses what the server needs from it.
    #[error("PostgreSQL runs but could not {action}: {source}; its log is {}", log.display())]
    Prepare {
        /// What was tried, as a verb.
        action: &'static str,
        /// Its answer.
        source: tokio_postgres::Error,
        /// Where to read more.
        log: PathBuf,
    },
}
