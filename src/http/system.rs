//! The topics `system.health` and `system.metrics`: how this server is, for administrators that listen, once a second.
//!
//! # Invariants
//! - Made once a second for all who listen, and not at all while nobody does. Nothing of it is stored.
//! - Whoever listens sees what `/v1/status` would say: no name that another tenant has given. It is made once with such names
//!   for the tenant that gave them, and once without for all others.
//! - A listener that is slow gets the newest, not all: nothing piles up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::app::App;
use super::{metrics, status};
use crate::event::Tenant;
use crate::log::ReadError;
use crate::log::status::{Database, Holder};

/// Between two beats; and as long the database has for its answer.
pub const BEAT: Duration = Duration::from_secs(1);

/// What a subscription names to get both.
pub const ALL: &str = "system.*";
/// What `/v1/status` says.
pub const HEALTH: &str = "system.health";
/// What `/metrics` says.
pub const METRICS: &str = "system.metrics";

/// How the server was at one moment.
#[derive(Debug)]
pub struct Beat {
    recorded_at: String,
    /// For everybody.
    health: Value,
    /// For the tenant whose role holds the watermark back.
    own: Option<(String, Value)>,
    metrics: Value,
}

impl Beat {
    /// The events of these topics, as somebody of `tenant` may see them.
    #[must_use]
    pub fn events(&self, topics: &[&'static str], tenant: &Tenant) -> Vec<Value> {
        let event = |topic: &&'static str| {
            let data = match &self.own {
                _ if *topic == METRICS => &self.metrics,
                Some((owner, own)) if owner == tenant.as_str() => own,
                _ => &self.health,
            };
            json!({ "topic": topic, "recorded_at": self.recorded_at, "data": data })
        };
        topics.iter().map(event).collect()
    }
}

/// What listeners wait for.
pub type Beats = watch::Receiver<Option<Arc<Beat>>>;

/// See the module.
#[derive(Debug)]
pub struct System {
    beats: watch::Sender<Option<Arc<Beat>>>,
    made: AtomicU64,
    /// Whose turn is taken to ask the database: of who began to listen last.
    asker: Mutex<Option<Tenant>>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            beats: watch::channel(None).0,
            made: AtomicU64::new(0),
            asker: Mutex::default(),
        }
    }
}

impl System {
    /// Beats from the next one on; as long as it is kept they are made.
    #[must_use]
    pub fn listen(&self, tenant: &Tenant) -> Beats {
        let mut asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        *asker = Some(tenant.clone());
        self.beats.subscribe()
    }

    /// How many beats have been made since the start.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    fn asker(&self) -> Option<Tenant> {
        let asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        asker.clone().filter(|_| self.beats.receiver_count() > 0)
    }
}

/// Makes a beat a second while somebody listens, for ever.
pub async fn run(app: App) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Some(asker) = app.system.asker() {
            let Some(beat) = make(&app, &asker).await else {
                continue;
            };
            app.system.made.fetch_add(1, Ordering::AcqRel);
            app.system.beats.send_replace(Some(Arc::new(beat)));
        }
    }
}

/// None if the asker's administrators ask for so much that it must wait.
async fn make(app: &App, asker: &Tenant) -> Option<Beat> {
    let asking = crate::log::status::look(&app.history, asker);
    let told = tokio::time::timeout(BEAT, asking).await;
    let (database, holder) = match told {
        Ok(Ok((database, holder))) => (Some(database), holder),
        Ok(Err(ReadError::Crowded)) => return None,
        Ok(Err(_)) | Err(_) => (None, None),
    };
    let owner = holder.as_ref().and_then(Holder::owner).map(str::to_owned);
    let of = |database: Option<Database>, holder: Option<Holder>| {
        serde_json::to_value(status::of(app, database, holder)).unwrap_or_default()
    };
    let own = owner.map(|owner| {
        let seen = of(database.clone(), holder.clone());
        (owner, seen)
    });
    let now = DateTime::<Utc>::from(SystemTime::now());
    Some(Beat {
        recorded_at: now.to_rfc3339_opts(SecondsFormat::Millis, true),
        health: of(database, holder.map(Holder::without_name)),
        own,
        metrics: metrics::values(app),
    })
}
