//! What the program says of itself while it runs: log lines, metrics and traces.
//!
//! # Invariants
//! - No line holds a credential or an event's data, at any level.

mod filter;
mod metrics;
pub mod recent;
mod seldom;
mod traces;

use std::io::IsTerminal as _;

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use filter::{BadFilter, InForce, LogFilter};
pub use metrics::{
    AppendMetrics, ConnectionMetrics, ConsumerMetrics, DatabaseMetrics, DeliveryMetrics, Eviction,
    Fate, Metrics, Open, Origin, RetryCause, Transport,
};
pub use seldom::Seldom;
pub use traces::{
    Appending, Exporter, ExporterError, NotASampler, Outcomes, RequestSpan, Sampling, Traces,
    TracesSettings,
};

/// Writes log lines to standard error from now on. What comes back changes which.
///
/// # Errors
/// If the filter does not parse.
pub fn start(filter: &str, json: bool) -> Result<LogFilter, BadFilter> {
    let (chosen, handle) = reload::Layer::new(filter::parse(filter)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let written = tracing_subscriber::registry()
        .with(chosen)
        .with(filter_fn(filter::may_be_written));
    // A second start in one process (tests) keeps the first.
    let _ = if json {
        written.with(lines.json().flatten_event(true)).try_init()
    } else {
        written.with(lines).try_init()
    };
    let install = move |filter| {
        if let Err(error) = handle.reload(filter) {
            tracing::error!(%error, "the log filter cannot be changed");
        }
    };
    Ok(LogFilter::new(filter, Box::new(install)))
}
