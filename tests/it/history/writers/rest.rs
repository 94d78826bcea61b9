//! Writers by REST: single events, arrays, NDJSON, and the same event everywhere at once.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Interval;

use super::{Ledger, append, event};
use crate::support::Api;

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
        event(&id, &mut self.rng)
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
            let lines: Vec<String> = events.iter().map(Value::to_string).collect();
            let body = lines.join("\n");
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
