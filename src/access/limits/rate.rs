//! A rate, and the buckets that keep everyone to it.
//!
//! # Invariants
//! - A bucket that is full again is the same as none: it is forgotten when the buckets have become many. A key costs a
//!   few bytes, whatever its name.

use std::fmt;
use std::hash::BuildHasherDefault;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::key::{Key, KeyHasher};

/// So many buckets are kept without a look for full ones.
const BUCKETS_FREE: usize = 1_024;
/// The finest that a bucket counts: a token in a nanosecond.
pub const PER_SECOND_MAX: u32 = 1_000_000_000;

/// So many a second, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: NonZeroU32,
    /// Tokens of a full bucket; none: a second's worth, or the largest request if that is more.
    pub burst: Option<NonZeroU32>,
}

/// Why a text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a rate per second from 1 to {PER_SECOND_MAX}, or a rate and a burst as in 100:1000")]
pub struct NoRate;

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let number = |text: &str| {
            let number = text.replace('_', "").parse::<NonZeroU32>().ok();
            number
                .filter(|number| number.get() <= PER_SECOND_MAX)
                .ok_or(NoRate)
        };
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate, Some(number(burst)?)),
            None => (text, None),
        };
        Ok(Self {
            per_second: number(rate)?,
            burst,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.per_second)?;
        self.burst.map_or(Ok(()), |burst| write!(f, ":{burst}"))
    }
}

/// Time as the runtime has it.
#[derive(Debug, Clone)]
struct Uptime(Instant);

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Store = HashMapStateStore<Key, BuildHasherDefault<KeyHasher>>;
type Limiter = RateLimiter<Key, Store, Uptime, StateInformationMiddleware>;

/// What a bucket says when asked for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Tokens that are left.
    pub left: u32,
    /// Until the tokens asked for are there; nothing if they were given.
    pub wait: Duration,
}

/// One bucket a key.
#[derive(Debug)]
pub struct Buckets {
    limiter: Limiter,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    /// Beyond so many a look for full ones is due.
    look_at: AtomicUsize,
}

impl Buckets {
    /// Full buckets; `largest`: the tokens that one request may need if the rate does not say.
    #[must_use]
    pub fn new(rate: Rate, largest: NonZeroU32) -> Self {
        let burst = rate.burst.unwrap_or_else(|| rate.per_second.max(largest));
        let quota = Quota::per_second(rate.per_second).allow_burst(burst);
        let store = Store::default();
        Self {
            limiter: RateLimiter::new(quota, store, Uptime(Instant::now())),
            per_second: rate.per_second,
            burst,
            look_at: AtomicUsize::new(BUCKETS_FREE),
        }
    }

    /// Tokens a second.
    #[must_use]
    pub const fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Tokens of a full bucket.
    #[must_use]
    pub const fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// How long a bucket with so many tokens takes until it is full.
    #[must_use]
    pub fn full_in(&self, left: u32) -> Duration {
        self.time_of(self.burst.get().saturating_sub(left))
    }

    /// How long so many tokens take to come.
    #[must_use]
    pub fn time_of(&self, tokens: u32) -> Duration {
        let nanos = self.nanos().saturating_mul(u64::from(tokens));
        Duration::from_nanos(nanos)
    }

    /// Nanoseconds of a token, as the limiter counts.
    fn nanos(&self) -> u64 {
        let per_second = u64::from(self.per_second.get());
        1_000_000_000_u64
            .checked_div(per_second)
            .unwrap_or(1)
            .max(1)
    }

    /// Takes tokens if they are there. A full bucket never has more than its burst.
    pub fn take(&self, key: Key, tokens: NonZeroU32) -> Level {
        match self.limiter.check_key_n(&key, tokens) {
            Ok(Ok(state)) => {
                self.forget_full();
                Level {
                    left: state.remaining_burst_capacity(),
                    wait: Duration::ZERO,
                }
            }
            Ok(Err(until)) => {
                let wait = until.wait_time_from(self.limiter.clock().now());
                // The bucket lacks what comes until then.
                let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                let lacking = nanos.div_ceil(self.nanos());
                let left = u64::from(tokens.get()).saturating_sub(lacking);
                Level {
                    left: u32::try_from(left).unwrap_or(0),
                    wait: wait.max(Duration::from_millis(1)),
                }
            }
            Err(_) => Level {
                left: self.burst.get(),
                wait: Duration::MAX,
            },
        }
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn known(&self) -> usize {
        self.limiter.len()
    }

    /// Looks for full buckets each time their number has doubled, so that each one is looked at twice on average.
    fn forget_full(&self) {
        let look_at = self.look_at.load(Ordering::Relaxed);
        if self.limiter.len() <= look_at {
            return;
        }
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        let next = self.limiter.len().saturating_mul(2).max(BUCKETS_FREE);
        self.look_at.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_rate_is_written_as_it_is_read() {
        for text in ["1", "100:1000", "1000000000:1"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "0", "1:0", "1000000001", "-1", "a", "1:", ":1", "1:2:3"] {
            assert_eq!(text.parse::<Rate>(), Err(NoRate), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back_at_the_time_given_and_keys_do_not_share() {
        let rate = "100:200".parse().unwrap();
        let buckets = Buckets::new(rate, tokens(1));
        let key = Key::for_test(1);
        assert_eq!(buckets.take(key, tokens(150)).left, 50);
        let level = buckets.take(key, tokens(100));
        assert_eq!((level.left, level.wait.as_millis()), (50, 500));
        assert!(buckets.take(Key::for_test(2), tokens(200)).wait.is_zero());
        tokio::time::advance(level.wait).await;
        assert!(buckets.take(key, tokens(100)).wait.is_zero());
        assert_eq!(buckets.take(key, tokens(201)).wait, Duration::MAX);
        assert_eq!(buckets.full_in(0).as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let rate = "10:10".parse().unwrap();
        let buckets = Buckets::new(rate, tokens(1));
        for number in 0..100_000 {
            if number % 1_000 == 0 {
                // Those of before are full again.
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert!(
                buckets
                    .take(Key::for_test(number), tokens(10))
                    .wait
                    .is_zero()
            );
        }
        assert!(buckets.known() <= 3 * BUCKETS_FREE, "{}", buckets.known());
    }
}
