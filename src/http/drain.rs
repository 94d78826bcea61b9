//! How a server goes: readers leave one after the other, not all at once.
//!
//! # Invariants
//! - Whoever is here when the server begins to drain leaves at a moment of its own within the window, and goes on as before until
//!   then. Nobody else is let in.
//! - The end of the server is the end for all, whatever the window.

use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Clients are told to come back within this time of the beginning of a drain, each at its own moment.
const COME_BACK: Duration = Duration::from_secs(5);
/// And within this time of their own departure at least.
const COME_BACK_MIN: Duration = Duration::from_secs(1);

/// See the module. Clones are one drain.
#[derive(Debug, Clone)]
pub struct Drain {
    began: watch::Sender<Option<Instant>>,
    window: Duration,
    end: CancellationToken,
}

impl Drain {
    /// A drain over `window` that has not begun, of a server that ends with `end`.
    #[must_use]
    pub fn new(window: Duration, end: CancellationToken) -> Self {
        Self {
            began: watch::channel(None).0,
            window,
            end,
        }
    }

    /// The first readers leave.
    pub fn begin(&self) {
        self.began.send_replace(Some(Instant::now()));
    }

    /// Does what may be waited for, until it is done or nobody is let in any more.
    pub async fn run_until_begun<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut began = self.began.subscribe();
        tokio::select! {
            biased;
            () = self.end.cancelled() => None,
            _ = began.wait_for(Option::is_some) => None,
            done = work => Some(done),
        }
    }

    /// Whether nobody is let in any more.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.began.borrow().is_some() || self.end.is_cancelled()
    }

    /// Over how long readers leave.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// When somebody leaves who has come now.
    #[must_use]
    pub fn departure(&self) -> Departure {
        Departure {
            began: self.began.subscribe(),
            after: self.window.mul_f64(rand::rng().random_range(0.0..=1.0)),
            end: self.end.clone(),
        }
    }

    /// How long somebody who leaves is to wait before it comes back.
    #[must_use]
    pub fn come_back_after(&self) -> Duration {
        let within = COME_BACK.saturating_sub(self.window).max(COME_BACK_MIN);
        within.mul_f64(rand::rng().random_range(0.0..1.0))
    }
}

/// When one reader leaves.
#[derive(Debug, Clone)]
pub struct Departure {
    began: watch::Receiver<Option<Instant>>,
    /// After the beginning.
    after: Duration,
    end: CancellationToken,
}

impl Departure {
    /// Whether it is time.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let began = *self.began.borrow();
        self.end.is_cancelled() || began.is_some_and(|at| at.elapsed() >= self.after)
    }

    /// Waits for the time, however long that is.
    pub fn due(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut began, after, end) = (self.began.clone(), self.after, self.end.clone());
        async move {
            let own = async {
                // The sender goes with the server.
                let Ok(at) = began.wait_for(Option::is_some).await.map(|at| *at) else {
                    return;
                };
                let at = at.and_then(|at| at.checked_add(after));
                tokio::time::sleep_until(at.unwrap_or_else(Instant::now)).await;
            };
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = own => {}
            }
        }
    }

    /// Does what may be waited for, until it is done or it is time.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.due() => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_leave_one_after_the_other_within_the_window() {
        let drain = Drain::new(Duration::from_secs(3), CancellationToken::new());
        let departures: Vec<Departure> = (0..300).map(|_| drain.departure()).collect();
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(!drain.has_begun() && departures.iter().all(|one| !one.is_due()));
        drain.begin();
        let mut left = Vec::new();
        for _ in 0..=6 {
            left.push(departures.iter().filter(|one| one.is_due()).count());
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert!(left[0] < 20 && (100..200).contains(&left[3]), "{left:?}");
        assert_eq!(left[6], 300);
        assert!(drain.has_begun());
        let hints: Vec<Duration> = (0..100).map(|_| drain.come_back_after()).collect();
        assert!(hints.iter().all(|hint| *hint < Duration::from_secs(2)));
        assert!(hints.iter().any(|hint| *hint > Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_the_end_for_all() {
        let end = CancellationToken::new();
        let drain = Drain::new(Duration::from_mins(10), end.clone());
        let one = drain.departure();
        assert_eq!(one.run(async { 7 }).await, Some(7));
        let mut waits = std::pin::pin!(one.run(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut waits).is_pending());
        end.cancel();
        assert_eq!(waits.await, None);
        assert!(one.is_due() && drain.has_begun());
    }
}
