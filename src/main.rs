//! The `tidewire` program.

use std::process::ExitCode;

use clap::Parser as _;
use tidewire::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire: {error:#}");
            ExitCode::FAILURE
        }
    }
}
