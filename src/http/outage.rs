//! What readers are told of the database: that it is away, that it can be read alone, and that it is back.
//!
//! # Invariants
//! - Each reader is told once of each change, in their order; who comes in the middle is told how it is.
//! - Whether it is away is what the tail hears of it, not what becomes of what is written.

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::log::{Breaker, Trouble};

/// What one reader has been told.
#[derive(Debug)]
pub struct Outage {
    breaker: Breaker,
    troubles: watch::Receiver<Option<Trouble>>,
    told: Option<Trouble>,
}

impl Outage {
    /// Of somebody who has been told nothing.
    #[must_use]
    pub fn new(breaker: &Breaker) -> Self {
        let mut troubles = breaker.troubles();
        troubles.mark_changed();
        Self {
            breaker: breaker.clone(),
            troubles,
            told: None,
        }
    }

    /// Waits until there is something to tell. Dropping it loses nothing.
    pub async fn notice(&mut self) -> Value {
        loop {
            if self.troubles.changed().await.is_err() {
                return std::future::pending().await;
            }
            let trouble = *self.troubles.borrow_and_update();
            if trouble != self.told {
                self.told = trouble;
                return self.text(trouble);
            }
        }
    }

    fn text(&self, trouble: Option<Trouble>) -> Value {
        let (code, message) = match trouble {
            None => {
                return json!({"level": "info", "code": "database-back", "message": "the database answers again"});
            }
            Some(Trouble::Away) => (
                "database-away",
                "the database does not answer: what is written is refused, and nothing new arrives until it is back",
            ),
            Some(Trouble::WritesFail) => (
                "writes-fail",
                "the database answers, but what is written fails and is refused for a while; reading goes on",
            ),
        };
        let tripped = self.breaker.open_for(std::time::Instant::now());
        let retry_after = tripped.map_or(0, |tripped| tripped.retry_after.as_millis());
        json!({
            "level": "warn", "code": code, "message": message,
            "retry_after_ms": u64::try_from(retry_after).unwrap_or(u64::MAX),
        })
    }
}
