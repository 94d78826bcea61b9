//! How long events take to readers, and whether that is longer than aimed for.

use std::time::Duration;

use serde::Serialize;

use super::{Issue, issue};
use crate::event::{ByPriority, Priority};

/// A latency is worth a word if so many events say so.
const OBSERVED_MIN: u64 = 100;

/// From receipt to the line of a live reader, of the last minute.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Events that were measured.
    pub events: u64,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 95 of 100 took no longer.
    pub p95_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

/// A class's target: which quantile is to be below what.
const fn target(priority: Priority) -> (&'static str, Duration) {
    match priority {
        Priority::Critical | Priority::High => ("p95", Duration::from_millis(50)),
        Priority::Normal => ("p99", Duration::from_millis(100)),
        Priority::Low => ("p99", Duration::from_millis(500)),
    }
}

/// The classes that miss their target.
pub(super) fn slow(latency: &ByPriority<Option<Latency>>) -> Vec<Issue> {
    let of_class = |priority: Priority| {
        let seen = (*latency.of(priority))?;
        let (quantile, most) = target(priority);
        let took = if quantile == "p95" {
            seen.p95_ms
        } else {
            seen.p99_ms
        };
        let is_slow = seen.events >= OBSERVED_MIN && took > most.as_secs_f64() * 1e3;
        is_slow.then(|| {
            let code = match priority {
                Priority::Critical => "slow-critical",
                Priority::High => "slow-high",
                Priority::Normal => "slow-normal",
                Priority::Low => "slow-low",
            };
            issue(
                code,
                10,
                format!("{quantile} from receipt to reader was {took:.0} ms in the last minute; the target is {} ms", most.as_millis()),
                "see tidewire_append_wait_seconds, tidewire_batch_seconds and tidewire_visible_seconds for where it goes",
            )
        })
    };
    Priority::ALL.into_iter().filter_map(of_class).collect()
}
