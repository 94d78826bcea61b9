//! Writes numbered events at a rate, each until it is acknowledged.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Storm;
use crate::backoff::Backoff;
use crate::check::probe::Probe;
use crate::client::{pause, pause_until};

/// The last part of the topic.
pub(super) const NAME: &str = "drill";
/// Between two requests.
const TICK: Duration = Duration::from_millis(20);
/// Events of one request.
const BATCH_MAX: u64 = 500;
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How writing went.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Requests that were sent again.
    pub(super) retries: u64,
    /// Events of the last request, if it was never acknowledged: they may be in the log or not.
    pub(super) unanswered: u64,
}

/// Writes until `stop`; what is under way then goes on until `given_up`.
pub(super) async fn run(
    probe: &Probe,
    storm: &Storm,
    rate: u32,
    stop: Instant,
    given_up: Instant,
) -> Written {
    let (began, mut written) = (Instant::now(), Written::default());
    let mut next = 0_u64;
    let mut due = began;
    while Instant::now() < stop {
        due += TICK;
        pause_until(due).await;
        // What could not be written while the server was away is made up for, a batch at a time.
        let elapsed = began.elapsed().as_millis();
        let target = elapsed.saturating_mul(u128::from(rate)) / 1_000;
        let target = u64::try_from(target).unwrap_or(u64::MAX);
        let end = target.min(next.saturating_add(BATCH_MAX));
        if end <= next {
            continue;
        }
        let events: Vec<Value> = (next..end).map(|n| event(probe, n)).collect();
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let stored = timeout_at(given_up, async {
            while probe.append(&events).await.is_err() {
                written.retries = written.retries.saturating_add(1);
                pause(backoff.next_delay()).await;
            }
        });
        if stored.await.is_err() {
            written.unanswered = end.saturating_sub(next);
            break;
        }
        next = end;
        storm.acknowledged.store(next, Ordering::Release);
    }
    written
}

fn event(probe: &Probe, n: u64) -> Value {
    json!({
        "id": format!("{}-{NAME}-{n}", probe.run()),
        "topic": probe.topic(NAME),
        "subject": probe.subject(),
        "gdpr": { "consent": true, "basis": "contract" },
        "data": { "n": n },
    })
}
