//! How long something took, many times over.

use std::time::Duration;

use serde::Serialize;

/// Times in milliseconds, to the tenth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Half were no longer.
    pub p50_ms: f64,
    /// 95 of 100 were no longer.
    pub p95_ms: f64,
    /// 99 of 100 were no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    /// Of these, in any order.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The smallest that so many of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = times.len().saturating_mul(percent).div_ceil(100);
            let time = times.get(rank.saturating_sub(1)).copied();
            (time.unwrap_or_default().as_secs_f64() * 10_000.0).round() / 10.0
        };
        Self {
            count: times.len(),
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
            max_ms: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_those_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(times);
        let wanted = [100.0, 190.0, 198.0, 200.0];
        let got = [spread.p50_ms, spread.p95_ms, spread.p99_ms, spread.max_ms];
        assert!(
            got.iter()
                .zip(wanted)
                .all(|(got, wanted)| (got - wanted).abs() < 0.01),
            "{spread:?}"
        );
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
