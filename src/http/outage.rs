//! What readers are told of the database: that it is away, and that it is back.
//!
//! # Invariants
//! - Each reader is told once of each, in their order; who comes while it is away is told so.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::log::{Breaker, BreakerState};

/// What one reader has been told.
#[derive(Debug)]
pub struct Outage {
    breaker: Breaker,
    states: watch::Receiver<BreakerState>,
    is_told: bool,
}

impl Outage {
    /// Of somebody who has been told nothing.
    #[must_use]
    pub fn new(breaker: &Breaker) -> Self {
        let mut states = breaker.states();
        states.mark_changed();
        Self {
            breaker: breaker.clone(),
            states,
            is_told: false,
        }
    }

    /// Waits until there is something to tell. Dropping it loses nothing.
    pub async fn notice(&mut self) -> Value {
        loop {
            if self.states.changed().await.is_err() {
                return std::future::pending().await;
            }
            let is_away = *self.states.borrow_and_update() == BreakerState::Open;
            if is_away != self.is_told {
                self.is_told = is_away;
                return self.text(is_away);
            }
        }
    }

    fn text(&self, is_away: bool) -> Value {
        if is_away {
            let tripped = self.breaker.open_for(std::time::Instant::now());
            let retry_after = tripped.map_or(0, |tripped| tripped.retry_after.as_millis());
            json!({
                "level": "warn", "code": "database-away",
                "message": "the database does not answer: what is written is refused, and nothing new arrives until it is back",
                "retry_after_ms": u64::try_from(retry_after).unwrap_or(u64::MAX),
            })
        } else {
            json!({"level": "info", "code": "database-back", "message": "the database answers again"})
        }
    }
}
