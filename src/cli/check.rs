//! `tidewire check`: looks at a running server from outside.

/// Settings of `tidewire check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the checks.
///
/// # Errors
/// If one fails.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
