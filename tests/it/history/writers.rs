//! Writers: by REST in three forms, and in SQL by every means and with every accident.

mod rest;
mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Interval;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

pub use self::rest::Rest;
pub use self::sql::Sql;

/// What writers know at the end.
#[derive(Default)]
pub struct Ledger {
    /// Ids whose commit was acknowledged.
    pub acknowledged: Vec<String>,
    /// Ids that were surely rolled back.
    pub undone: Vec<String>,
    pub rollbacks: usize,
    pub savepoints: usize,
    pub deadlocks: usize,
    pub kills: usize,
    pub duplicates: usize,
    /// What else went wrong, by SQLSTATE or HTTP status.
    pub errors: BTreeMap<String, usize>,
    /// Answers that no writer should ever get.
    pub complaints: Vec<String>,
}

impl Ledger {
    /// Adds another writer's.
    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.undone.extend(other.undone);
        self.rollbacks += other.rollbacks;
        self.savepoints += other.savepoints;
        self.deadlocks += other.deadlocks;
        self.kills += other.kills;
        self.duplicates += other.duplicates;
        self.complaints.extend(other.complaints);
        for (what, count) in other.errors {
            *self.errors.entry(what).or_default() += count;
        }
    }

    fn error(&mut self, what: impl Into<String>) {
        *self.errors.entry(what.into()).or_default() += 1;
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} acknowledged, {} undone, {} rollbacks, {} savepoints, {} deadlocks, {} kills, {} duplicates, {:?}",
            self.acknowledged.len(),
            self.undone.len(),
            self.rollbacks,
            self.savepoints,
            self.deadlocks,
            self.kills,
            self.duplicates,
            self.errors
        )
    }
}

pub fn event(id: &str, rng: &mut StdRng) -> Value {
    let topic = ["history.a.one", "history.a.two", "history.b.one"][rng.random_range(0..3)];
    let subject = format!("s{}", rng.random_range(0..8));
    json!({"id": id, "topic": topic, "subject": subject, "source": "history", "data": {"n": rng.random_range(0..1000)}})
}

/// Calls `tidewire.append()`; whether it was a duplicate.
async fn append(client: &Client, event: &Value) -> Result<bool, tokio_postgres::Error> {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let query =
        "SELECT duplicate FROM tidewire.append($1, $2, subject => $3, id => $4, source => $5)";
    let row = client
        .query_one(
            query,
            &[
                &text("topic"),
                &event["data"],
                &text("subject"),
                &text("id"),
                &text("source"),
            ],
        )
        .await?;
    Ok(row.get(0))
}

pub async fn connect(database_url: &str, name: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls)
        .await
        .unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    let settings =
        format!("SET application_name = 'history {name}'; SET deadlock_timeout = '20ms'");
    client.batch_execute(&settings).await.unwrap();
    client
}

/// Deadlocks on purpose: two writers, each holding what the other wants. One of them is rolled back.
pub async fn quarrel(database_url: String, until: Instant) -> Ledger {
    let mut ledger = Ledger::default();
    let writers = [
        connect(&database_url, "quarrel").await,
        connect(&database_url, "quarrel").await,
    ];
    let mut rng = StdRng::seed_from_u64(0);
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let ids = ["one", "two"].map(|side| format!("quarrel-{round}-{side}"));
        for (number, writer) in writers.iter().enumerate() {
            writer.batch_execute("BEGIN").await.unwrap();
            append(writer, &event(&ids[number], &mut rng))
                .await
                .unwrap();
            let lock = format!("SELECT pg_advisory_xact_lock({number})");
            writer.batch_execute(&lock).await.unwrap();
        }
        let (first, second) = tokio::join!(
            writers[0].batch_execute("SELECT pg_advisory_xact_lock(1); COMMIT"),
            writers[1].batch_execute("SELECT pg_advisory_xact_lock(0); COMMIT"),
        );
        for (id, end) in ids.into_iter().zip([first, second]) {
            match end {
                Ok(()) => ledger.acknowledged.push(id),
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
                    ledger.deadlocks += 1;
                    ledger.undone.push(id);
                }
            }
        }
        for writer in &writers {
            writer.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    ledger
}

/// Terminates writers' backends in the middle of whatever they do, and now and then a server's.
pub async fn kill_backends(client: Client, seed: u64, until: Instant) -> Ledger {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut ledger = Ledger::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(300));
    let victims = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE $1 ORDER BY pid";
    while Instant::now() < until {
        ticks.tick().await;
        let kind = if rng.random_bool(0.85) {
            "history writer"
        } else {
            "tidewire append %"
        };
        let pids = client.query(victims, &[&kind]).await.unwrap();
        if pids.is_empty() {
            continue;
        }
        let pid: i32 = pids[rng.random_range(0..pids.len())].get(0);
        client
            .execute("SELECT pg_terminate_backend($1)", &[&pid])
            .await
            .unwrap();
        ledger.kills += 1;
    }
    ledger
}

/// Events that every reader gets, and that tell it where the history ends.
pub struct EndMarkers {
    client: Client,
    ticks: Interval,
    count: u32,
}

impl EndMarkers {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            ticks: tokio::time::interval(Duration::from_millis(200)),
            count: 0,
        }
    }

    /// Writes the next one when it is due.
    pub async fn write(&mut self) -> Result<(), tokio_postgres::Error> {
        self.ticks.tick().await;
        self.count += 1;
        let id = format!("end-{}", self.count);
        let event = json!({"id": id, "topic": "history.end", "subject": "end", "source": "history", "data": 0});
        append(&self.client, &event).await?;
        Ok(())
    }
}
