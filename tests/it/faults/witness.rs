//! A live reader that is connected once: whatever breaks behind the server, its socket stays open and gets the whole log.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::writers::connect;
use crate::support::{Api, eventually};

/// How long it may take to get what is committed, after a fault.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Seen {
    ids: Vec<String>,
    /// Codes of `notice`.
    notices: Vec<String>,
    /// Frames that no reader should get: `gap`, `error`, the end.
    complaints: Vec<String>,
}

/// See the module.
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
    _reading: JoinSet<()>,
}

impl Witness {
    /// Connects, and is live.
    pub async fn live(api: &Api) -> Self {
        let mut ws = api.ws().await;
        let subscribe =
            json!({"type": "subscribe", "id": "w", "topics": ["*"], "after": "earliest"});
        ws.send(subscribe).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (mut reading, noted) = (JoinSet::new(), Arc::clone(&seen));
        reading.spawn(async move {
            loop {
                let frame = ws.next().await;
                let mut seen = noted.lock().unwrap();
                match frame {
                    Ok(Some(frame)) => seen.take(&frame),
                    end => {
                        seen.complaints.push(format!("{end:?}"));
                        return;
                    }
                }
            }
        });
        Self {
            seen,
            _reading: reading,
        }
    }

    /// Waits until it has been told this `notice`.
    pub async fn is_told(&self, code: &str) {
        eventually(PATIENCE, || async {
            let seen = self.seen.lock().unwrap();
            let is_told = seen.notices.iter().any(|told| told == code);
            is_told.then_some(()).ok_or(seen.notices.clone())
        })
        .await;
    }

    /// Waits until it has got all that is committed by now, and compares: in order, each once, over the same socket.
    pub async fn judge(self, database_url: &str) {
        let client = connect(database_url, "witness").await;
        let select = "SELECT id FROM tidewire.events WHERE tenant = 'dev' ORDER BY seq";
        let rows = client.query(select, &[]).await.unwrap();
        let committed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        eventually(PATIENCE, || async {
            let seen = self.seen.lock().unwrap();
            let is_over = seen.ids.len() >= committed.len() || !seen.complaints.is_empty();
            is_over.then_some(()).ok_or(seen.ids.len())
        })
        .await;
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.complaints, Vec::<String>::new());
        let place = |(a, b): (&String, &String)| a != b;
        let apart = seen.ids.iter().zip(&committed).position(place);
        assert_eq!(apart, None, "what came is not the log from here on");
        assert!(!committed.is_empty());
    }
}

impl Seen {
    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "events" => {
                let ids = frame["events"].as_array().unwrap().iter();
                self.ids
                    .extend(ids.map(|event| event["id"].as_str().unwrap().to_owned()));
            }
            "notice" => self
                .notices
                .push(frame["code"].as_str().unwrap().to_owned()),
            "subscribed" | "live" | "heartbeat" => {}
            _ => self.complaints.push(frame.to_string()),
        }
    }
}
