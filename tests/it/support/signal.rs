//! Signals to processes by their id.

use std::process::ExitStatus;

/// Sends `signal` (`-INT`, `-KILL`) to all of `pids`. By the shell's own command: a machine may have no program for it.
pub async fn send(signal: &str, pids: &[&str]) -> ExitStatus {
    tokio::process::Command::new("sh")
        .args(["-c", "kill \"$@\"", "kill", signal])
        .args(pids)
        .status()
        .await
        .unwrap()
}
