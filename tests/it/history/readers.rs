//! Readers over every transport that drop their connection at random and resume at the last cursor they processed.

use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Interval;
use tokio_tungstenite::tungstenite::Message;

use super::audience::{Filter, Transport};
use super::verdict::is_end;
use crate::support::Api;

/// Any error while reading: a reader takes it as the end of its connection.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// What a reader has seen.
pub struct Record {
    pub name: String,
    pub filter: Filter,
    /// Ids, up to the first end marker.
    pub seen: Vec<String>,
    pub resumes: usize,
    /// What it should never have been told.
    pub complaints: Vec<String>,
}

/// Reads until it sees an end marker.
pub struct Reader {
    transport: Transport,
    apis: [Api; 2],
    server: usize,
    database_url: String,
    rng: StdRng,
    cursor: String,
    record: Record,
    ticks: Interval,
}

impl Reader {
    /// A reader that begins on either server.
    pub fn new(
        transport: Transport,
        filter: Filter,
        apis: &[Api; 2],
        database_url: &str,
        seed: u64,
    ) -> Self {
        let name = format!("{transport:?} {filter:?}");
        Self {
            transport,
            apis: apis.clone(),
            server: usize::from(seed.is_multiple_of(2)),
            database_url: database_url.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            cursor: if transport == Transport::Sql {
                "0"
            } else {
                "earliest"
            }
            .to_owned(),
            record: Record {
                name,
                filter,
                seen: Vec::new(),
                resumes: 0,
                complaints: Vec::new(),
            },
            ticks: tokio::time::interval(Duration::from_millis(5)),
        }
    }

    /// Reads to the end, over as many connections as it takes.
    pub async fn run(mut self) -> Record {
        loop {
            // Now and then it comes back at the other server: a cursor is good on each.
            if self.rng.random_bool(0.3) {
                self.server = 1 - self.server;
            }
            let steps = self.rng.random_range(1..25);
            let connection = match self.transport {
                Transport::Page | Transport::LongPoll => self.pages(steps).await,
                Transport::Sse => self.sse(steps).await,
                Transport::Ws | Transport::WsMsgpack => self.socket(steps).await,
                Transport::Sql => self.sql(steps).await,
            };
            if self.is_over() {
                return self.record;
            }
            self.record.resumes += 1;
            if connection.is_err() {
                self.ticks.tick().await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.record.seen.last().is_some_and(|id| is_end(id))
    }

    /// Processes a batch: from here on `cursor` is where it resumes.
    fn take(&mut self, events: &Value, cursor: &str) {
        for event in events.as_array().unwrap() {
            if !self.is_over() {
                self.record
                    .seen
                    .push(event["id"].as_str().unwrap().to_owned());
            }
        }
        cursor.clone_into(&mut self.cursor);
    }

    fn complain(&mut self, what: impl fmt::Display) {
        if self.record.complaints.len() < 10 {
            self.record.complaints.push(what.to_string());
        }
    }

    async fn pages(&mut self, steps: u32) -> Result<(), Trouble> {
        for _ in 0..steps {
            let limit = self.rng.random_range(1..=1000);
            let wait = if self.transport == Transport::LongPoll {
                "&wait=5"
            } else {
                ""
            };
            let path = format!(
                "/v1/events?{}&after={}&limit={limit}{wait}",
                self.record.filter.query(),
                self.cursor
            );
            let request = self.apis[self.server].request(reqwest::Method::GET, &path);
            let response = request.timeout(Duration::from_secs(30)).send().await?;
            let status = response.status();
            let body: Value = response.json().await?;
            if !status.is_success() {
                if status != reqwest::StatusCode::SERVICE_UNAVAILABLE {
                    self.complain(format_args!("{status} {body}"));
                }
                return Err(status.to_string().into());
            }
            self.take(&body["events"], body["cursor"].as_str().unwrap());
            if self.is_over() {
                break;
            }
            if body["has_more"] == false && self.transport == Transport::Page {
                self.ticks.tick().await;
            }
        }
        Ok(())
    }

    async fn sse(&mut self, steps: u32) -> Result<(), Trouble> {
        let query = format!("{}&after=earliest", self.record.filter.query());
        let resume = Some(self.cursor.clone()).filter(|cursor| cursor != "earliest");
        let api = self.apis[self.server].clone();
        let mut stream = api.sse(&query, resume.as_deref()).await?;
        if !stream.response.status().is_success() {
            return Err(stream.response.status().to_string().into());
        }
        for _ in 0..steps {
            let Some(message) = stream.next().await? else {
                break;
            };
            if message.event == "error" {
                self.complain(&message.data);
                break;
            }
            let cursor = message.id.as_deref().unwrap_or_default();
            if message.event == "message" {
                self.take(&serde_json::from_str(&message.data)?, cursor);
            }
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    async fn socket(&mut self, steps: u32) -> Result<(), Trouble> {
        let is_msgpack = self.transport == Transport::WsMsgpack;
        let protocol = if is_msgpack {
            "tidewire.v1.msgpack"
        } else {
            "tidewire.v1.json"
        };
        let request = self.apis[self.server].ws_request(Some(protocol))?;
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
        let subscribe = self.record.filter.subscribe(&self.cursor);
        let subscribe = if is_msgpack {
            Message::Binary(rmp_serde::to_vec_named(&subscribe)?.into())
        } else {
            Message::Text(subscribe.to_string().into())
        };
        socket.send(subscribe).await?;
        for _ in 0..steps {
            let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await?;
            let frame: Value = match next {
                Some(Ok(Message::Text(text))) if !is_msgpack => serde_json::from_str(&text)?,
                Some(Ok(Message::Binary(bytes))) if is_msgpack => rmp_serde::from_slice(&bytes)?,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Err(error)) => return Err(error.into()),
                _ => break,
            };
            match frame["type"].as_str().unwrap() {
                "events" => self.take(&frame["events"], frame["cursor"].as_str().unwrap()),
                "gap" | "error" => self.complain(&frame),
                _ => {}
            }
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// As an application would that follows the log without a server: the watermark, then, in a new snapshot, the rows.
    async fn sql(&mut self, steps: u32) -> Result<(), Trouble> {
        let (client, connection) =
            tokio_postgres::connect(&self.database_url, tokio_postgres::NoTls).await?;
        let mut driving = tokio::task::JoinSet::new();
        driving.spawn(connection);
        let query = format!(
            "SELECT seq, id FROM tidewire.events WHERE tenant = 'dev' AND seq > $1 AND seq <= $2 AND {}
              ORDER BY seq LIMIT $3",
            self.record.filter.predicate()
        );
        for _ in 0..steps {
            let limit = self.rng.random_range(1..=1000_i64);
            let after: i64 = self.cursor.parse()?;
            let row = client
                .query_one("SELECT watermark FROM tidewire.watermark()", &[])
                .await?;
            let watermark: i64 = row.get(0);
            let rows = client.query(&query, &[&after, &watermark, &limit]).await?;
            let is_full = rows.len() == usize::try_from(limit)?;
            let through = rows.last().map_or(after, |row| row.get(0));
            let events = rows
                .iter()
                .map(|row| json!({"id": row.get::<_, &str>(1)}))
                .collect();
            self.take(&events, &through.to_string());
            if self.is_over() {
                break;
            }
            if !is_full {
                self.ticks.tick().await;
            }
        }
        Ok(())
    }
}
