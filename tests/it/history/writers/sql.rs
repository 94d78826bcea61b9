//! Writers in SQL: every means, every isolation level, every end.

use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{Ledger, append, connect, event};

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
            client: connect(database_url, "writer").await,
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
            "57P01" | "closed" => {}
            _ => self.ledger.error(code),
        }
        if self.client.is_closed() || code == "57P01" || code == "closed" {
            self.client = connect(&self.database_url, "writer").await;
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
        let seconds = match self.rng.random_range(0..500) {
            0 => self.rng.random_range(0.5..2.5),
            1..20 => self.rng.random_range(0.02..0.1),
            20..150 => self.rng.random_range(0.0..0.01),
            _ => return Ok(()),
        };
        self.client
            .batch_execute(&format!("SELECT pg_sleep({seconds})"))
            .await
    }

    /// Some events, by one of three means; their ids.
    async fn write(&mut self) -> Result<Vec<String>, tokio_postgres::Error> {
        let size = self.rng.random_range(1..12);
        let events: Vec<Value> = (0..size)
            .map(|_| {
                self.count += 1;
                event(
                    &format!("sql-{}-{}", self.number, self.count),
                    &mut self.rng,
                )
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
