//! Settings: how much memory events and readers take.

use std::time::Duration;

use clap::Args;

use super::number;
use crate::event::limits;

/// How much memory events and readers take.
#[derive(Debug, Clone, Args)]
pub struct Memory {
    /// Events kept in memory for live and resuming readers.
    #[arg(long, env = "TIDEWIRE_WINDOW_EVENTS", default_value_t = limits::WINDOW_EVENTS, value_parser = at_least_2000, value_name = "COUNT")]
    pub window_events: usize,

    /// Bytes of events kept in memory.
    #[arg(long, env = "TIDEWIRE_WINDOW_BYTES", default_value_t = limits::WINDOW_BYTES, value_parser = at_least_1_mib, value_name = "BYTES")]
    pub window_bytes: usize,

    /// Bytes that all sessions may hold: sockets, streams, waiting long-polls, pages on their way, their subscriptions and what
    /// waits for their clients. Beyond it the idle are told to go, then the slowest.
    #[arg(long, env = "TIDEWIRE_SESSION_BYTES", default_value_t = limits::SESSIONS_BYTES_MAX, value_parser = at_least_16_mib, value_name = "BYTES")]
    pub session_bytes: usize,

    /// A socket without subscriptions on which nothing has happened for so many seconds is idle: it goes first where memory is
    /// short.
    #[arg(long, env = "TIDEWIRE_SESSION_IDLE_S", default_value_t = limits::SESSION_IDLE.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    pub session_idle_s: u64,
}

impl Memory {
    /// When a session is idle.
    #[must_use]
    pub const fn session_idle(&self) -> Duration {
        Duration::from_secs(self.session_idle_s)
    }
}

fn at_least_2000(text: &str) -> Result<usize, String> {
    number(text, limits::TAIL_PAGE_EVENTS, 100_000_000)
}

/// Some pages at once.
fn at_least_16_mib(text: &str) -> Result<usize, String> {
    number(text, 16 << 20, 1 << 40)
}

fn at_least_1_mib(text: &str) -> Result<usize, String> {
    number(text, 1 << 20, 1 << 40)
}
