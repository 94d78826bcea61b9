//! What is looked at once a second, whoever asks: the latencies of the last minute.
//!
//! # Invariants
//! - One look a second for the whole server, however many ask.

use std::time::Instant;

use serde_json::json;

use super::acted::acted;
use super::app::App;
use super::health::Latency;
use super::system::{self, BEAT};
use crate::event::ByPriority;
use crate::telemetry::recent::{Buckets, Recent};

/// See the module.
#[derive(Debug, Default)]
pub struct Pulse {
    delivered: ByPriority<Recent>,
}

impl Pulse {
    /// From receipt to reader in the last minute; none where nothing was delivered live.
    #[must_use]
    pub fn latency(&self) -> ByPriority<Option<Latency>> {
        ByPriority::new(|priority| latency(&self.delivered.of(priority).minute()))
    }
}

fn latency(minute: &Buckets) -> Option<Latency> {
    let ms = |quantile| {
        minute
            .quantile(quantile)
            .map(|took| took.as_secs_f64() * 1e3)
    };
    Some(Latency {
        events: minute.count,
        p50_ms: ms(0.5)?,
        p95_ms: ms(0.95)?,
        p99_ms: ms(0.99)?,
    })
}

/// Looks once a second, and tells who listens, for ever.
pub async fn run(app: App) {
    // Apart: the database may be slow to answer.
    tokio::join!(look(app.clone()), system::run(app));
}

async fn look(app: App) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Some(by) = app.expire_log_filter(Instant::now()) {
            tracing::info!("the log is as it was set at the start again");
            let did = json!({ "filter": app.log_filter().in_force().configured });
            let topic = "tidewire.audit.admin.log_level.returned";
            acted(&app, &by, topic, &did);
        }
        for priority in crate::event::Priority::ALL {
            let now = app.metrics.delivery.latencies(priority);
            app.pulse.delivered.of(priority).look(now);
        }
    }
}
