//! Writers and readers that go on by themselves whatever breaks, and the judgement at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::audience::{Filter, Transport};
use crate::history::readers::{Reader, Record};
use crate::history::verdict::Verdict;
use crate::history::writers::{Ledger, connect, event};
use crate::support::{Api, eventually};

/// How long a load may take to go on after a fault.
const RECOVERY: Duration = Duration::from_mins(1);
/// How long a writer waits for an answer: longer than the server may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A load on a server at a fixed address.
pub struct Load {
    api: Api,
    database_url: String,
    stop: CancellationToken,
    counts: Arc<Counts>,
    writing: JoinSet<Ledger>,
    reading: JoinSet<Record>,
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    /// Answers 503.
    unavailable: AtomicUsize,
}

impl Load {
    /// Begins on `api`; `database_url` is for the judgement.
    pub fn start(api: &Api, database_url: &str) -> Self {
        let mut load = Self {
            api: api.clone(),
            database_url: database_url.to_owned(),
            stop: CancellationToken::new(),
            counts: Arc::default(),
            writing: JoinSet::new(),
            reading: JoinSet::new(),
        };
        for number in 0..3 {
            let (api, stop, counts) = (api.clone(), load.stop.clone(), Arc::clone(&load.counts));
            load.writing.spawn(write(number, api, stop, counts));
        }
        let audience = [
            (Transport::Sse, Filter::All),
            (Transport::Ws, Filter::All),
            (Transport::LongPoll, Filter::All),
            (Transport::WsMsgpack, Filter::Topics),
        ];
        let apis = [api.clone(), api.clone()];
        for (seed, (transport, filter)) in (0..).zip(audience) {
            let reader = Reader::new(transport, filter, &apis, database_url, seed);
            load.reading.spawn(reader.run());
        }
        load
    }

    /// Waits until so many more events have been acknowledged.
    pub async fn goes_on(&self, more: usize) {
        let wanted = self.counts.acknowledged.load(Ordering::Relaxed) + more;
        eventually(RECOVERY, || async {
            let now = self.counts.acknowledged.load(Ordering::Relaxed);
            if now >= wanted {
                Ok(())
            } else {
                Err(format!("{now} of {wanted}"))
            }
        })
        .await;
    }

    /// Waits until a writer has been told 503.
    pub async fn is_refused(&self) {
        eventually(RECOVERY, || async {
            match self.counts.unavailable.load(Ordering::Relaxed) {
                0 => Err("no 503"),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Ends the writers, lets the readers reach the end, and compares all with the table.
    pub async fn judge(mut self) {
        self.stop.cancel();
        let mut ledger = Ledger::default();
        while let Some(one) = self.writing.join_next().await {
            ledger.merge(one.unwrap());
        }
        let mut records = Vec::new();
        let reading = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            for number in 0.. {
                let id = format!("end-{number}");
                let end = json!({"id": id, "topic": "history.end", "subject": "end"});
                while let Ok(record) =
                    tokio::time::timeout(Duration::ZERO, self.reading.join_next()).await
                {
                    match record {
                        Some(record) => records.push(record.unwrap()),
                        None => return,
                    }
                }
                self.api.append(&end).await;
                ticks.tick().await;
            }
        };
        tokio::time::timeout(RECOVERY, reading)
            .await
            .expect("every reader reaches the end");
        let client = connect(&self.database_url, "judge").await;
        let verdict = Verdict::of(&client, records, ledger).await;
        println!("{verdict}");
        assert_eq!(verdict.faults(), Vec::<String>::new(), "{verdict}");
        assert!(verdict.committed > 0);
    }
}

/// Sends each event, or array of events, under the same ids until it is acknowledged.
async fn write(number: u64, api: Api, stop: CancellationToken, counts: Arc<Counts>) -> Ledger {
    let mut rng = StdRng::seed_from_u64(number);
    let mut ledger = Ledger::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut count = 0;
    while !stop.is_cancelled() {
        let events: Vec<Value> = (0..rng.random_range(1..6))
            .map(|_| {
                count += 1;
                event(&format!("load-{number}-{count}"), &mut rng)
            })
            .collect();
        loop {
            ticks.tick().await;
            let request = api.request(Method::POST, "/v1/events").json(&events);
            // A line that breaks says nothing: the outcome is unknown, and the same ids are sent again.
            let Ok(response) = request.timeout(PATIENCE).send().await else {
                continue;
            };
            let status = response.status();
            let has_retry_after = response.headers().contains_key("retry-after");
            let Ok(body) = response.json::<Value>().await else {
                continue;
            };
            match status {
                StatusCode::CREATED => {
                    for answer in body["events"].as_array().unwrap() {
                        ledger
                            .acknowledged
                            .push(answer["id"].as_str().unwrap().to_owned());
                        ledger.duplicates += usize::from(answer["duplicate"] == true);
                    }
                    counts
                        .acknowledged
                        .fetch_add(events.len(), Ordering::Relaxed);
                    break;
                }
                StatusCode::SERVICE_UNAVAILABLE if has_retry_after => {
                    counts.unavailable.fetch_add(1, Ordering::Relaxed);
                    *ledger.errors.entry("503".to_owned()).or_default() += 1;
                }
                _ => {
                    ledger.complaints.push(format!("{status} {body}"));
                    break;
                }
            }
        }
    }
    ledger
}
