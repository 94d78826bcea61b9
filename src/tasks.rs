//! The one place that spawns, so that a stop can wait for all that runs.
//!
//! # Invariants
//! - Whoever is spawned here watches the token and ends soon after it is cancelled.

use std::future::Future;
use std::time::Duration;

use scopeguard::ScopeGuard;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// A group of tasks with one stop signal. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` until it ends by itself; it should watch [`Tasks::stopping`].
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(future);
    }

    /// Runs `future`, dropping it where it stands when the group stops.
    pub fn spawn_until_stop(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let _ = stop.run_until_cancelled(future).await;
        });
    }

    /// Runs `future` where it is waited for, to its end in any case: what is left of it when nobody waits any more runs as
    /// [`Tasks::spawn`] has it. For what has an effect that somebody has to take note of.
    pub async fn to_the_end<T>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let mut rest = scopeguard::guard(Box::pin(future), |rest| {
            self.spawn(async move { drop(rest.await) });
        });
        let outcome = rest.as_mut().await;
        drop(ScopeGuard::into_inner(rest));
        outcome
    }

    /// A group of its own that also stops when this one does.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
        }
    }

    /// Ends when the group is asked to stop.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// The stop signal.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Asks all to stop and waits for them, at most `deadline`. Whether all have ended.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }
}

/// Runs what takes long to compute on a thread that serves nobody. `None`: it panicked, which is logged, or the program ends.
/// Goes on to its end if nobody waits any more; how much of it runs at once its callers bound.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Waits for `duration`: for backoff and pacing, never to wait for a condition.
pub async fn pause(duration: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    tokio::time::sleep(duration).await;
}
