//! Settings: how much is done at once.

use clap::Args;

use crate::event::limits;

/// How much is done at once.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Events that are stored with one statement at most. Fewer while latency matters; see `append_queue.batch_limit` in
    /// `/v1/status`.
    #[arg(long, env = "TIDEWIRE_BATCH_EVENTS_MAX", default_value_t = limits::BATCH_EVENTS_MAX, value_parser = batch_events, value_name = "COUNT")]
    pub batch_events_max: usize,
}

fn batch_events(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(events @ 1..=limits::BATCH_EVENTS_MAX) => Ok(events),
        _ => Err(format!(
            "write a number from 1 to {}",
            limits::BATCH_EVENTS_MAX
        )),
    }
}
