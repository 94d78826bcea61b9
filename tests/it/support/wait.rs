//! Waiting on conditions, never on time.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` gives `Ok`; panics with the last `Err` after `patience`.
pub async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(
    patience: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let mut ticks = tokio::time::interval(LOOK);
    let mut last = None;
    let waiting = async {
        loop {
            ticks.tick().await;
            match look().await {
                Ok(value) => return value,
                Err(seen) => last = Some(seen),
            }
        }
    };
    match tokio::time::timeout(patience, waiting).await {
        Ok(value) => value,
        Err(elapsed) => panic!("not so within {patience:?} ({elapsed}); last seen: {last:?}"),
    }
}
