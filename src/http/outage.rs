//! What readers are told of the database: that it is away, and that it is back.
//!
//! # Invariants
//! - Each reader is told once of each, in their order; who comes while it is away is told so.
//! - It is back when something was stored, or when the log is read that was not: to try is not to know.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::feed::Hub;
use crate::log::tail::TailStatus;
use crate::log::{Breaker, BreakerState};

/// What one reader has been told.
#[derive(Debug)]
pub struct Outage {
    breaker: Breaker,
    states: watch::Receiver<BreakerState>,
    tail: watch::Receiver<TailStatus>,
    is_told: bool,
    /// Since it was told the log could not be read for a while.
    was_unread: bool,
}

impl Outage {
    /// Of somebody who has been told nothing.
    #[must_use]
    pub fn new(breaker: &Breaker, hub: &Hub) -> Self {
        let mut states = breaker.states();
        states.mark_changed();
        Self {
            breaker: breaker.clone(),
            states,
            tail: hub.tail_states(),
            is_told: false,
            was_unread: false,
        }
    }

    /// Waits until there is something to tell. Dropping it loses nothing.
    pub async fn notice(&mut self) -> Value {
        loop {
            let changed = tokio::select! {
                changed = self.states.changed() => changed,
                changed = self.tail.changed(), if self.is_told => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
            let state = *self.states.borrow_and_update();
            let is_read = self.tail.borrow_and_update().is_up;
            self.was_unread |= !is_read;
            let is_away = match state {
                BreakerState::Closed => false,
                BreakerState::Open => true,
                // That it is tried says nothing; that the log is read again does.
                BreakerState::HalfOpen => self.is_told && !(is_read && self.was_unread),
            };
            if is_away != self.is_told {
                self.is_told = is_away;
                self.was_unread = !is_read;
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
