//! The `tidewire` program.

use std::process::ExitCode;

use clap::Parser;

/// Real-time sync on PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: tidewire::cli::Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(err) => {
            eprintln!(
                "tidewire: no threads could be started: {err}. Close some programs and run this again."
            );
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(tidewire::cli::run(cli.command));
    // Not waiting for a write to a pipe that nobody reads any more.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("tidewire: {err:#}");
            ExitCode::FAILURE
        }
    }
}
