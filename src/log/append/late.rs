//! Whoever waits for an answer when the time is over.
//!
//! # Invariants
//! - What no lane has taken by then leaves the queue with its bytes, and is answered and counted.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::error::Elapsed;

use super::{Answers, Appender};
use crate::log::error::{AppendError, Unavailable};
use crate::log::lane::fail;

/// After the time is over, an answer that is about to come is waited for so long,
const MOMENT: Duration = Duration::from_secs(1);
/// and where the client has said how long it waits.
const MOMENT_HELD: Duration = Duration::from_millis(200);

impl Appender {
    /// Waits for the answer. What still waits in the queue when the time is over is taken out and answered; of what a lane has
    /// then more may be known in a moment.
    pub(super) async fn answer_in_time(
        &self,
        mut answer: oneshot::Receiver<Answers>,
        wait: Option<Duration>,
        timeout: Duration,
    ) -> Result<Result<Answers, oneshot::error::RecvError>, Elapsed> {
        if let Ok(answered) = tokio::time::timeout(timeout, &mut answer).await {
            return Ok(answered);
        }
        let now = Instant::now();
        let error = match self.breaker.open_for(now) {
            Some(tripped) => AppendError::Tripped(tripped),
            None => AppendError::Unavailable(Unavailable::Silent),
        };
        for queue in [&self.queue, &self.patient] {
            fail(queue.take_late(now), &error, &self.metrics.append).await;
        }
        let moment = if wait.is_some() { MOMENT_HELD } else { MOMENT };
        tokio::time::timeout(moment, answer).await
    }
}
