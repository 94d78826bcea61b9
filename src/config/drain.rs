//! Settings: how the server ends.

use std::time::Duration;

use clap::Args;

/// How the server ends.
#[derive(Debug, Clone, Args)]
pub struct Drain {
    /// Over so many seconds after SIGTERM readers are told to come back, each at its own moment; until then they are served.
    #[arg(long, env = "TIDEWIRE_DRAIN_S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600), value_name = "SECONDS")]
    pub drain_s: u64,
}

impl Drain {
    /// The same as a duration.
    #[must_use]
    pub const fn window(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}
