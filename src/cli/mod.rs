//! The commands that talk to a server over its public contract, as any other client does.
//!
//! # Invariants
//! - Every error ends in a sentence that says what to do.
//! - Results go to stdout, everything about the way there to stderr: commands compose in a shell.

mod advise;
pub mod append;
mod cursor_file;
mod deliver;
pub mod demo;
pub mod follow;
pub mod import;
mod interrupt;
mod lines;
mod mapping;
mod output;
mod pointer;
mod progress;
pub mod remote;
mod simulation;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write events: one from the flags, or NDJSON from stdin
    Append(append::Args),
    /// Read events as NDJSON, and go on as they come
    Follow(follow::Args),
    /// Write the NDJSON of any feed, field by field
    Import(import::Args),
    /// Play a manager with workers
    Demo(demo::Args),
}

/// Runs one command.
///
/// # Errors
/// Whatever the command could not do, and what to do about it.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Append(args) => append::run(args).await,
        Command::Follow(args) => follow::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Demo(args) => demo::run(args).await,
    }
}
