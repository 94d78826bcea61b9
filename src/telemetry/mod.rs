//! What the program says of itself while it runs: log lines.
//!
//! # Invariants
//! - No line holds a credential or an event's data, at any level.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What these say below `info` holds what passes through them, whatever filter is asked for: frames with credentials and
/// data, parameters of statements, headers.
const TALKATIVE: [&str; 4] = ["tungstenite", "tokio_tungstenite", "tokio_postgres", "h2"];

/// The filter does not parse.
#[derive(Debug, thiserror::Error)]
#[error("TIDEWIRE_LOG is not a log filter ({0}): write info, debug, or tidewire::log=debug")]
pub struct BadFilter(#[from] tracing_subscriber::filter::ParseError);

/// Writes log lines to standard error from now on.
///
/// # Errors
/// If the filter does not parse.
pub fn start(filter: &str, json: bool) -> Result<(), BadFilter> {
    let mut filter = EnvFilter::builder().parse(filter)?;
    for target in TALKATIVE {
        filter = filter.add_directive(format!("{target}=info").parse()?);
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = if json {
        lines.json().try_init()
    } else {
        lines.try_init()
    };
    Ok(())
}
