//! Settings: when the database is left alone.

use std::time::Duration;

use clap::Args;

use crate::log::BreakerSettings;

/// When the database is left alone.
#[derive(Debug, Clone, Args)]
pub struct Breaker {
    /// After so many failures in a row the database is left alone: what is written is refused at once (503), or held if
    /// the client asks for it (`Prefer: wait`).
    #[arg(long, env = "TIDEWIRE_BREAKER_FAILURES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
    pub breaker_failures: u32,

    /// After so long it is tried again, or as soon as the server can read again.
    #[arg(long, env = "TIDEWIRE_BREAKER_RECOVERY_S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub breaker_recovery_s: u64,

    /// Batches that try it at once then.
    #[arg(long, env = "TIDEWIRE_BREAKER_PROBES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4), value_name = "COUNT")]
    pub breaker_probes: u32,
}

impl Breaker {
    /// As the log takes them.
    #[must_use]
    pub const fn settings(&self) -> BreakerSettings {
        BreakerSettings {
            failures: self.breaker_failures,
            recovery: Duration::from_secs(self.breaker_recovery_s),
            probes: self.breaker_probes,
        }
    }
}
