//! The `tidewire` program.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use tidewire::cli::Cli;

/// Events are many small pieces that one thread makes and another frees, for which the system's allocator is slow. Without
/// huge pages: to clear one takes as long as to serve a page of events.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!(
                "tidewire: no threads could be started: {error}. Close some programs and run this again."
            );
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(cli.command.run());
    // Not waiting for a write to a pipe that nobody reads any more.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidewire: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, but for those that it names itself.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
