//! Writers: by REST in three forms, and in SQL by every means and with every accident.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Interval;
use tokio_postgres::Client;

use super::readers::Trouble;
use crate::support::Api;

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

/// A writer by REST that sends again, at either server, what was not acknowledged.
pub struct Rest {
    number: u64,
    apis: [Api; 2],
    database_url: String,
    rng: StdRng,
    count: u64,
    ledger: Ledger,
    ticks: Interval,
}

impl Rest {
    pub fn new(number: u64, apis: &[Api; 2], database_url: &str, seed: u64) -> Self {
        Self {
            number,
            apis: apis.clone(),
            database_url: database_url.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            count: 0,
            ledger: Ledger::default(),
            ticks: tokio::time::interval(Duration::from_millis(5)),
        }
    }

    pub async fn run(mut self, until: Instant) -> Ledger {
        while Instant::now() < until {
            self.ticks.tick().await;
            match self.number % 4 {
                0 => self.send(1).await,
                1 => {
                    let size = self.rng.random_range(2..30);
                    self.send(size).await;
                }
                2 => self.send_lines().await,
                _ => self.send_everywhere().await,
            }
        }
        self.ledger
    }

    fn event(&mut self) -> Value {
        self.count += 1;
        let id = format!("rest-{}-{}", self.number, self.count);
        event(id, &mut self.rng)
    }

    /// An event, or an array, until it is acknowledged; now and then once more.
    async fn send(&mut self, size: usize) {
        let events: Vec<Value> = (0..size).map(|_| self.event()).collect();
        let body = if size == 1 {
            events[0].clone()
        } else {
            json!(events)
        };
        let mut again = self.rng.random_bool(0.1);
        loop {
            let (status, answer) = self.apis[self.rng.random_range(0..2)]
                .try_append(&body)
                .await;
            if status == StatusCode::CREATED {
                self.acknowledge(answer["events"].as_array().unwrap());
                if !std::mem::take(&mut again) {
                    return;
                }
            } else if status == StatusCode::SERVICE_UNAVAILABLE {
                self.ledger.error(status.as_str());
                self.ticks.tick().await;
            } else {
                self.ledger.complaints.push(format!("{status} {answer}"));
                return;
            }
        }
    }

    /// NDJSON, the lines that were not answered again.
    async fn send_lines(&mut self) {
        let size = self.rng.random_range(1..100);
        let mut events: Vec<Value> = (0..size).map(|_| self.event()).collect();
        while !events.is_empty() {
            let body: String = events.iter().map(|event| format!("{event}\n")).collect();
            let api = &self.apis[self.rng.random_range(0..2)];
            let request = api.request(Method::POST, "/v1/events");
            let request = request
                .header("content-type", "application/x-ndjson")
                .body(body);
            let text = request.send().await.unwrap().text().await.unwrap();
            let lines: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .filter(|line: &Value| line["error"].is_null())
                .collect();
            self.acknowledge(&lines);
            events.retain(|event| !lines.iter().any(|line| line["id"] == event["id"]));
            if !events.is_empty() {
                self.ledger.error("line");
                self.ticks.tick().await;
            }
        }
    }

    /// The same event to both servers and in SQL at once: one stores it, all acknowledge it.
    async fn send_everywhere(&mut self) {
        let event = self.event();
        let (first, second) = (
            self.apis[0].try_append(&event),
            self.apis[1].try_append(&event),
        );
        let by_sql = async {
            let (client, connection) =
                tokio_postgres::connect(&self.database_url, tokio_postgres::NoTls)
                    .await
                    .unwrap();
            let mut driving = tokio::task::JoinSet::new();
            driving.spawn(connection);
            append(&client, &event).await
        };
        let (first, second, by_sql) = tokio::join!(first, second, by_sql);
        let mut stored = 0;
        for (status, answer) in [first, second] {
            if status == StatusCode::CREATED {
                stored += usize::from(answer["events"][0]["duplicate"] == false);
                self.acknowledge(answer["events"].as_array().unwrap());
            } else {
                self.ledger.error(status.as_str());
            }
        }
        match by_sql {
            Ok(is_duplicate) => stored += usize::from(!is_duplicate),
            Err(error) => self.ledger.error(format!("append {:?}", error.code())),
        }
        if stored > 1 {
            self.ledger
                .complaints
                .push(format!("{stored} times not a duplicate: {event}"));
        }
    }

    fn acknowledge(&mut self, answers: &[Value]) {
        for answer in answers {
            self.ledger
                .acknowledged
                .push(answer["id"].as_str().unwrap().to_owned());
            self.ledger.duplicates += usize::from(answer["duplicate"] == true);
        }
    }
}

fn event(id: String, rng: &mut StdRng) -> Value {
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

/// A writer in SQL: `tidewire.append()`, INSERT and COPY in transactions of every kind and end.
pub struct Sql {
    number: u64,
    database_url: String,
    client: Client,
    rng: StdRng,
    count: u64,
    ledger: Ledger,
}

/// How a transaction ended.
enum End {
    Committed,
    RolledBack,
    Unknown(tokio_postgres::Error),
}

impl Sql {
    pub async fn new(number: u64, database_url: &str, seed: u64) -> Self {
        Self {
            number,
            database_url: database_url.to_owned(),
            client: connect(database_url).await,
            rng: StdRng::seed_from_u64(seed),
            count: 0,
            ledger: Ledger::default(),
        }
    }

    pub async fn run(mut self, until: Instant) -> Ledger {
        while Instant::now() < until {
            let (mut kept, mut undone) = (Vec::new(), Vec::new());
            match self.transaction(&mut kept, &mut undone).await {
                Ok(End::Committed) => self.ledger.acknowledged.append(&mut kept),
                Ok(End::RolledBack) => {
                    self.ledger.rollbacks += 1;
                    undone.append(&mut kept);
                }
                Ok(End::Unknown(error)) => self.failed(&error).await,
                // Before COMMIT was sent.
                Err(error) => {
                    undone.append(&mut kept);
                    self.failed(&error).await;
                }
            }
            self.ledger.undone.append(&mut undone);
        }
        self.ledger
    }

    async fn failed(&mut self, error: &tokio_postgres::Error) {
        let code = error.code().map_or("closed", |code| code.code());
        match code {
            "40P01" => self.ledger.deadlocks += 1,
            "57P01" | "closed" => {}
            _ => self.ledger.error(code),
        }
        if self.client.is_closed() || code == "57P01" || code == "closed" {
            self.client = connect(&self.database_url).await;
        } else {
            self.client.batch_execute("ROLLBACK").await.ok();
        }
    }

    async fn transaction(
        &mut self,
        kept: &mut Vec<String>,
        undone: &mut Vec<String>,
    ) -> Result<End, tokio_postgres::Error> {
        let isolation = [
            "READ COMMITTED",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ];
        let isolation = isolation[self.rng.random_range(0..4)];
        self.client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))
            .await?;
        if self.rng.random_bool(0.3) {
            // Its snapshot is older than what is written meanwhile.
            self.client
                .batch_execute("SELECT count(*) FROM tidewire.epochs")
                .await?;
            self.hold().await?;
        }
        for _ in 0..self.rng.random_range(1..5) {
            if self.rng.random_bool(0.3) {
                self.ledger.savepoints += 1;
                self.client.batch_execute("SAVEPOINT here").await?;
                let ids = self.write().await?;
                self.hold().await?;
                if self.rng.random_bool(0.5) {
                    self.client.batch_execute("ROLLBACK TO here").await?;
                    undone.extend(ids);
                } else {
                    self.client.batch_execute("RELEASE here").await?;
                    kept.extend(ids);
                }
            } else {
                kept.extend(self.write().await?);
            }
            self.hold().await?;
        }
        if self.rng.random_bool(0.2) {
            self.quarrel().await?;
        }
        if self.rng.random_bool(0.2) {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(End::RolledBack);
        }
        Ok(match self.client.batch_execute("COMMIT").await {
            Ok(()) => End::Committed,
            Err(error) => End::Unknown(error),
        })
    }

    /// Keeps the transaction open: mostly for a moment, rarely for seconds.
    async fn hold(&mut self) -> Result<(), tokio_postgres::Error> {
        let seconds = match self.rng.random_range(0..100) {
            0 => self.rng.random_range(0.5..2.5),
            1..10 => self.rng.random_range(0.02..0.2),
            10..50 => self.rng.random_range(0.0..0.02),
            _ => return Ok(()),
        };
        self.client
            .batch_execute(&format!("SELECT pg_sleep({seconds})"))
            .await
    }

    /// Two locks in either order: two writers at once deadlock.
    async fn quarrel(&mut self) -> Result<(), tokio_postgres::Error> {
        let (first, second) = if self.rng.random_bool(0.5) {
            (1, 2)
        } else {
            (2, 1)
        };
        let query = format!(
            "SELECT pg_advisory_xact_lock({first}); SELECT pg_sleep(0.05); SELECT pg_advisory_xact_lock({second})"
        );
        self.client.batch_execute(&query).await
    }

    /// Some events, by one of three means; their ids.
    async fn write(&mut self) -> Result<Vec<String>, tokio_postgres::Error> {
        let size = self.rng.random_range(1..20);
        let events: Vec<Value> = (0..size)
            .map(|_| {
                self.count += 1;
                event(format!("sql-{}-{}", self.number, self.count), &mut self.rng)
            })
            .collect();
        match self.rng.random_range(0..3) {
            0 => {
                for event in &events {
                    append(&self.client, event).await?;
                }
            }
            1 => {
                // Every so often a neighbour's event is among them.
                let tenant = if self.rng.random_bool(0.1) {
                    "neighbour"
                } else {
                    "dev"
                };
                let query = "INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
                    SELECT $1, e ->> 'id', e ->> 'topic', e ->> 'subject', e ->> 'source', e -> 'data'
                      FROM jsonb_array_elements($2) AS e";
                self.client
                    .execute(query, &[&tenant, &json!(events)])
                    .await?;
            }
            _ => {
                let copy =
                    "COPY tidewire.events (tenant, id, topic, subject, source, data) FROM STDIN";
                let mut sink = Box::pin(self.client.copy_in::<_, Bytes>(copy).await?);
                for event in &events {
                    let text = |name: &str| event[name].as_str().unwrap().to_owned();
                    let line = format!(
                        "dev\t{}\t{}\t{}\t{}\t{}\n",
                        text("id"),
                        text("topic"),
                        text("subject"),
                        text("source"),
                        event["data"]
                    );
                    sink.send(Bytes::from(line)).await?;
                }
                sink.as_mut().finish().await?;
            }
        }
        Ok(events
            .iter()
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect())
    }
}

async fn connect(database_url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls)
        .await
        .unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    let settings = "SET application_name = 'history writer'; SET deadlock_timeout = '20ms'";
    client.batch_execute(settings).await.unwrap();
    client
}

/// Terminates writers' backends in the middle of whatever they do, and now and then a server's.
pub async fn kill_backends(client: Client, seed: u64, until: Instant) -> Ledger {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut ledger = Ledger::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    let victims = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE $1 ORDER BY pid";
    while Instant::now() < until {
        ticks.tick().await;
        let kind = if rng.random_bool(0.9) {
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
    pub async fn write(&mut self) -> Result<(), Trouble> {
        self.ticks.tick().await;
        self.count += 1;
        let id = format!("end-{}", self.count);
        let event = json!({"id": id, "topic": "history.end", "subject": "end", "source": "history", "data": 0});
        append(&self.client, &event).await?;
        Ok(())
    }
}
