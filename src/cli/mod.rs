//! The command line: parse, run one command.
//!
//! # Invariants
//! - Every failure ends in a sentence on standard error that says what to do, and a non-zero exit code.

pub mod check;
pub mod migrate;
pub mod serve;
pub mod token;

use clap::{Parser, Subcommand};

/// Real-time sync on PostgreSQL: one append-only log, one thin server, no event lost.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the log over HTTP, WebSocket and server-sent events.
    Serve(Box<crate::config::Serve>),
    /// Bring the schema of a database up to this version.
    Migrate(Box<migrate::Args>),
    /// Issue a token.
    Token(Box<token::Args>),
    /// Check a running server from outside: it answers, stores, and delivers.
    Check(check::Args),
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// A sentence.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(config) => serve::run(*config).await,
            Self::Migrate(args) => migrate::run(*args).await,
            Self::Token(args) => token::run(&args),
            Self::Check(args) => check::run(args).await,
        }
    }
}
