//! The topics `system.health` and `system.metrics`: how this server is, for administrators that listen, once a second.
//!
//! # Invariants
//! - Made once a second for all who listen, and not at all while nobody does. Nothing of it is stored.
//! - Whoever listens sees what `/v1/status` would say: no name that another tenant has given. It is made once with such names
//!   for the tenant that gave them, and once without for all others.
//! - A listener that is slow gets the newest, not all: nothing piles up.
//! - A beat does not wait for the database: it says what is known when it is due. What was said a moment ago counts as long as
//!   the tail reads the log; when it does not, nothing of the database is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::app::App;
use super::{metrics, status};
use crate::event::Tenant;
use crate::log::ReadError;
use crate::log::status::{Database, Holder};

/// Between two beats.
pub const BEAT: Duration = Duration::from_secs(1);
/// So long a beat waits for the database. What is said later is the next one's.
const ANSWER_SOON: Duration = Duration::from_millis(500);
/// So long what it has said is still true enough.
const KNOWN_FOR: Duration = Duration::from_secs(5);

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
}

impl Default for System {
    fn default() -> Self {
        Self {
            beats: watch::channel(None).0,
            made: AtomicU64::new(0),
        }
    }
}

impl System {
    /// Beats from the next one on; as long as it is kept they are made.
    #[must_use]
    pub fn listen(&self) -> Beats {
        self.beats.subscribe()
    }

    /// How many beats have been made since the start.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }
}

/// What the database has said, and when.
#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    database: Database,
    holder: Option<Holder>,
}

/// What the database says, and who holds the watermark back.
type Answer = Result<(Database, Option<Holder>), ReadError>;

/// Asks the database for the server itself, one question at a time. It may take longer than until the next beat.
#[derive(Default)]
struct Asker {
    asking: Option<BoxFuture<'static, Answer>>,
    known: Option<Known>,
}

impl Asker {
    /// What the database says, if it does so soon; else what it has said a moment ago, if it is there at all.
    async fn ask(&mut self, app: &App) -> Option<Known> {
        let asking = self.asking.get_or_insert_with(|| {
            let history = app.history.clone();
            // Nobody's turn but the server's own: no tenant's administrators hold it up, nor it them.
            async move { crate::log::status::look(&history, &Tenant::nobody()).await }.boxed()
        });
        let is_up = app.hub.tail().is_up;
        // The first answer is worth the wait, where there will be one.
        let patience = if self.known.is_none() && is_up {
            BEAT
        } else {
            ANSWER_SOON
        };
        if let Ok(told) = tokio::time::timeout(patience, asking).await {
            self.asking = None;
            self.known = told.ok().map(|(database, holder)| Known {
                at: Instant::now(),
                database,
                holder,
            });
        }
        let is_fresh = |known: &&Known| known.at.elapsed() < KNOWN_FOR && is_up;
        self.known.as_ref().filter(is_fresh).cloned()
    }
}

/// Makes a beat a second while somebody listens, for ever.
pub async fn run(app: App) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asker = Asker::default();
    loop {
        beats.tick().await;
        if app.system.beats.receiver_count() == 0 {
            asker = Asker::default();
            continue;
        }
        let known = asker.ask(&app).await;
        app.system.made.fetch_add(1, Ordering::AcqRel);
        let beat = make(&app, known);
        app.system.beats.send_replace(Some(Arc::new(beat)));
    }
}

fn make(app: &App, known: Option<Known>) -> Beat {
    let (database, holder) =
        known.map_or((None, None), |known| (Some(known.database), known.holder));
    let owner = holder.as_ref().and_then(Holder::owner).map(str::to_owned);
    let of = |database: Option<Database>, holder: Option<Holder>| {
        serde_json::to_value(status::of(app, database, holder)).unwrap_or_default()
    };
    let own = owner.map(|owner| {
        let seen = of(database.clone(), holder.clone());
        (owner, seen)
    });
    let now = DateTime::<Utc>::from(SystemTime::now());
    Beat {
        recorded_at: now.to_rfc3339_opts(SecondsFormat::Millis, true),
        health: of(database, holder.map(Holder::without_name)),
        own,
        metrics: metrics::values(app),
    }
}
