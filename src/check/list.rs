//! Which checks there are, and which belong to which depth.

use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::flaw::Flaw;
use super::probe::Probe;
use super::report::Figures;
use super::{
    batches, errors, functions, integrity, isolation, performance, reliability, transports,
};

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether everything works; 10 s at most.
    Quick,
    /// Whether it is fast enough; 60 s at most.
    Performance,
    /// Both, with more of each; 180 s at most.
    Comprehensive,
}

impl Depth {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Performance => "performance",
            Self::Comprehensive => "comprehensive",
        }
    }

    /// How long it takes at most, cleaning up included.
    #[must_use]
    pub const fn time_max(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(10),
            Self::Performance => Duration::from_mins(1),
            Self::Comprehensive => Duration::from_mins(3),
        }
    }

    /// What of that is kept for cleaning up.
    #[must_use]
    pub const fn cleanup_max(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(2),
            Self::Performance => Duration::from_secs(15),
            Self::Comprehensive => Duration::from_secs(30),
        }
    }

    /// How many events the checks of data write.
    #[must_use]
    pub const fn events(self) -> usize {
        match self {
            Self::Quick | Self::Performance => 200,
            Self::Comprehensive => 5_000,
        }
    }
}

impl FromStr for Depth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Quick, Self::Performance, Self::Comprehensive]
            .into_iter()
            .find(|depth| depth.as_str() == text)
            .ok_or("must be quick, performance or comprehensive")
    }
}

/// What a check is run by.
type Run = for<'a> fn(&'a Probe, &'a mut Figures) -> BoxFuture<'a, Result<(), Flaw>>;

/// A check.
pub(super) struct Check {
    /// `group/what`.
    pub(super) name: &'static str,
    /// What is true if it passes.
    pub(super) claim: &'static str,
    /// Whether it measures time.
    is_timed: bool,
    pub(super) run: Run,
}

impl Check {
    /// Whether it belongs to this depth.
    pub(super) fn is_of(&self, depth: Depth) -> bool {
        match depth {
            Depth::Quick => !self.is_timed,
            // What is fast must also be right.
            Depth::Performance => self.is_timed || self.name.starts_with("integrity/"),
            Depth::Comprehensive => true,
        }
    }
}

macro_rules! check {
    ($name:literal, $claim:literal, $run:path) => {
        check!($name, $claim, $run, false)
    };
    ($name:literal, $claim:literal, $run:path, $is_timed:literal) => {
        Check {
            name: $name,
            claim: $claim,
            is_timed: $is_timed,
            run: |probe, figures| Box::pin($run(probe, figures)),
        }
    };
}

/// All of them, in the order in which they run.
pub(super) const CHECKS: &[Check] = &[
    check!(
        "functions/store",
        "what is stored is read back as it was",
        functions::store
    ),
    check!(
        "functions/select",
        "topics and subjects select what they say",
        functions::select
    ),
    check!(
        "functions/state",
        "an expectation holds for one writer of two",
        functions::expect
    ),
    check!(
        "transports/page",
        "pages hold every event once, in order",
        transports::page
    ),
    check!(
        "transports/long-poll",
        "a long-poll answers when an event comes",
        transports::long_poll
    ),
    check!(
        "transports/sse",
        "a stream delivers every event once, in order",
        transports::sse
    ),
    check!(
        "transports/websocket",
        "a WebSocket delivers every event once, in order",
        transports::websocket
    ),
    check!(
        "transports/websocket-append",
        "what is appended over a WebSocket is answered once it is stored",
        transports::websocket_append
    ),
    check!(
        "batches/array",
        "an array is stored as one, or not at all",
        batches::array
    ),
    check!(
        "batches/ndjson",
        "an upload is answered line by line",
        batches::ndjson
    ),
    check!(
        "integrity/digests",
        "written, committed and delivered are the same",
        integrity::digests
    ),
    check!(
        "reliability/retry",
        "the same id again stores nothing twice",
        reliability::retry
    ),
    check!(
        "reliability/reconnect-sse",
        "a stream goes on after a cursor",
        reliability::reconnect_sse
    ),
    check!(
        "reliability/reconnect-websocket",
        "a WebSocket goes on after a cursor",
        reliability::reconnect_websocket
    ),
    check!(
        "reliability/breaker",
        "the breaker around the database is closed",
        reliability::breaker
    ),
    check!(
        "reliability/breaker-reset",
        "operators can reset the breaker",
        reliability::breaker_reset
    ),
    check!(
        "errors/malformed",
        "a body that cannot be read is refused and named",
        errors::malformed
    ),
    check!(
        "errors/cursor",
        "a cursor of another log is refused",
        errors::cursor
    ),
    check!(
        "errors/conflict",
        "an id with other content is refused",
        errors::conflict
    ),
    check!(
        "errors/credential",
        "a credential that is none is refused",
        errors::credential
    ),
    check!(
        "errors/too-many",
        "more events than an array may hold are refused",
        errors::too_many
    ),
    check!(
        "isolation/tenants",
        "another tenant sees nothing",
        isolation::tenants
    ),
    check!(
        "performance/latency",
        "each priority is delivered within its target",
        performance::latency,
        true
    ),
    check!(
        "performance/throughput",
        "batches are stored at a rate",
        performance::throughput,
        true
    ),
];
