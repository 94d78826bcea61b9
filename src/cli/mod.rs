//! The command line: parse, run one command.
//!
//! # Invariants
//! - Every failure ends in a sentence on standard error that says what to do, and a non-zero exit code.
//! - Results go to stdout, everything about the way there to stderr: commands compose in a shell.
//! - Commands that talk to a server do so over its public contract, as any other client does.

pub mod admin;
mod advise;
pub mod append;
pub mod audit;
pub mod check;
mod cursor_file;
mod deliver;
pub mod demo;
pub mod drill;
pub mod follow;
pub mod import;
mod interrupt;
pub mod key;
mod lines;
mod mapping;
pub mod migrate;
mod output;
mod pointer;
mod progress;
pub mod remote;
pub mod revoke;
pub mod role;
pub mod serve;
mod simulation;
pub mod token;
mod validate;
pub mod watch;

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
    /// Make, list and end the roles with which a tenant's people and programs use SQL.
    Role(Box<role::Args>),
    /// Issue a token.
    Token(Box<token::Args>),
    /// Create, list and revoke API keys.
    Key(Box<key::Args>),
    /// End tokens before their time.
    Revoke(Box<revoke::Args>),
    /// Say of whom a sign of life is expected, and how often.
    Watch(Box<watch::Args>),
    /// Reset the breaker, drop idle sockets, see more log lines: over a server, as an administrator.
    Admin(Box<admin::Args>),
    /// Check a running server from outside: it answers, stores, and delivers; with a word behind it, all that it promises.
    Check(Box<check::Args>),
    /// Compare what is committed with what a reader has received.
    Audit(Box<audit::Args>),
    /// Kill the connections of a crowd of readers, again and again, and see what they miss.
    Drill(Box<drill::Args>),
    /// Write events: one from the flags, or NDJSON from stdin.
    Append(Box<append::Args>),
    /// Read events as NDJSON, and go on as they come.
    Follow(Box<follow::Args>),
    /// Write the NDJSON of any feed, field by field.
    Import(Box<import::Args>),
    /// Play a manager with workers.
    Demo(Box<demo::Args>),
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
            Self::Role(args) => role::run(*args).await,
            Self::Token(args) => token::run(&args),
            Self::Key(args) => key::run(*args).await,
            Self::Revoke(args) => revoke::run(*args).await,
            Self::Watch(args) => watch::run(*args).await,
            Self::Admin(args) => admin::run(*args).await,
            Self::Check(args) => check::run(*args).await,
            Self::Audit(args) => audit::run(*args).await,
            Self::Drill(args) => drill::run(*args).await,
            Self::Append(args) => append::run(*args).await,
            Self::Follow(args) => follow::run(*args).await,
            Self::Import(args) => import::run(*args).await,
            Self::Demo(args) => demo::run(*args).await,
        }
    }
}
