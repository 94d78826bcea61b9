//! Latencies of the last minute: histograms that only grow say nothing of now.
//!
//! # Invariants
//! - A fixed number of looks, a fixed number of buckets each: no allocation by events.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Looks that are kept; one is taken a second.
const LOOKS: usize = 61;

/// What a histogram held at a moment: how many observations at most as long as each of its bounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds in seconds, ascending, with the observations up to there.
    pub upto: Vec<(f64, u64)>,
    /// All observations.
    pub count: u64,
}

impl Buckets {
    /// Adds another histogram's with the same bounds.
    pub fn add(&mut self, other: &Self) {
        if self.upto.is_empty() {
            self.upto.clone_from(&other.upto);
        } else {
            for (own, more) in self.upto.iter_mut().zip(&other.upto) {
                own.1 = own.1.saturating_add(more.1);
            }
        }
        self.count = self.count.saturating_add(other.count);
    }

    /// What has come since `before`.
    fn since(&self, before: &Self) -> Self {
        let mut upto = self.upto.clone();
        for (own, less) in upto.iter_mut().zip(&before.upto) {
            own.1 = own.1.saturating_sub(less.1);
        }
        Self {
            upto,
            count: self.count.saturating_sub(before.count),
        }
    }

    /// The quantile as Prometheus' `histogram_quantile` has it: linear within a bucket. None without observations; the
    /// last bound for those beyond it.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        // Counts of a minute.
        let as_float = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let rank = quantile * as_float(self.count);
        let (mut low, mut below) = (0.0, 0_u64);
        for (bound, upto) in &self.upto {
            if as_float(*upto) >= rank {
                let inside = as_float(upto.saturating_sub(below)).max(1.0);
                let part = (rank - as_float(below)).max(0.0) / inside;
                return Duration::try_from_secs_f64(low + (bound - low) * part).ok();
            }
            (low, below) = (*bound, *upto);
        }
        Duration::try_from_secs_f64(low).ok()
    }
}

/// Looks at one histogram, a second apart.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Buckets>>);

impl Recent {
    /// Takes another look.
    pub fn look(&self, now: Buckets) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= LOOKS {
            looks.pop_front();
        }
        looks.push_back(now);
    }

    /// What has come since the oldest look.
    #[must_use]
    pub fn minute(&self) -> Buckets {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (looks.front(), looks.back()) {
            (Some(first), Some(last)) => last.since(first),
            _ => Buckets::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: [u64; 3]) -> Buckets {
        Buckets {
            upto: vec![(0.01, counts[0]), (0.05, counts[1]), (0.1, counts[2])],
            count: counts[2],
        }
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let all = buckets([50, 90, 100]);
        let ms = |quantile| all.quantile(quantile).unwrap().as_millis();
        assert_eq!(
            (ms(0.25), ms(0.5), ms(0.7), ms(0.95), ms(1.0)),
            (5, 10, 30, 75, 100)
        );
        assert_eq!(Buckets::default().quantile(0.5), None);
        let beyond = Buckets {
            count: 10,
            ..buckets([0, 0, 1])
        };
        assert_eq!(beyond.quantile(0.9), Some(Duration::from_millis(100)));
    }

    #[test]
    fn what_is_older_than_a_minute_does_not_count() {
        let recent = Recent::default();
        recent.look(buckets([0, 0, 0]));
        recent.look(buckets([0, 0, 40]));
        assert_eq!(recent.minute().count, 40);
        for _ in 0..60 {
            recent.look(buckets([7, 7, 47]));
        }
        assert_eq!(recent.minute(), buckets([7, 7, 7]));
        recent.look(buckets([7, 7, 47]));
        assert_eq!(recent.minute().count, 0);
    }
}
