//! Connections of every kind that outlast their request, held open with one credential.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Api;

/// How a connection ended, and when.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub kind: &'static str,
    /// What the client was told.
    pub said: String,
    /// When.
    pub at: Instant,
}

/// A socket with a subscription, one without, a stream, a long-poll and an upload.
pub struct Held {
    running: JoinSet<Ended>,
}

impl Held {
    /// Opens them, and waits until each is there. The credential may read and write `deal.*`.
    pub async fn open(api: &Api) -> Self {
        let mut running = JoinSet::new();
        for (kind, is_subscribed) in [("socket", true), ("idle socket", false)] {
            let mut ws = api.ws().await;
            if is_subscribed {
                assert_eq!(
                    ws.subscribe("s", &["deal.*"], "latest").await["type"],
                    "subscribed"
                );
            }
            running.spawn(async move {
                let said = ws.close_code().await.to_string();
                ended(kind, said)
            });
        }
        let mut stream = api.sse("after=latest&topics=deal.*", None).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
        running.spawn(async move {
            loop {
                match stream.next().await.unwrap() {
                    Some(message) if message.event == "error" => {
                        assert!(stream.next().await.unwrap().is_none(), "it ends with that");
                        return ended("stream", message.data);
                    }
                    Some(_) => {}
                    None => return ended("stream", "the end".into()),
                }
            }
        });
        let poller = api.clone();
        running.spawn(async move {
            let path = "/v1/events?after=latest&wait=60&topics=deal.quiet";
            let (status, body) = poller.try_get(path).await;
            ended("long-poll", format!("{status} {}", body["detail"]))
        });
        running.spawn(upload(api).await);
        Self { running }
    }

    /// Waits until all have ended, at most `within` since `since`.
    pub async fn ended(&mut self, since: Instant, within: Duration) -> Vec<Ended> {
        let mut all = Vec::new();
        while let Some(one) = self.running.join_next().await {
            let one = one.unwrap();
            let took = one.at.saturating_duration_since(since);
            assert!(took <= within, "{}: {took:?}, {}", one.kind, one.said);
            all.push(one);
        }
        all
    }

    /// Whether all are open.
    pub fn are_open(&mut self) -> bool {
        self.running.try_join_next().is_none()
    }
}

fn ended(kind: &'static str, said: String) -> Ended {
    Ended {
        kind,
        said,
        at: Instant::now(),
    }
}

/// An upload whose first line is stored and whose second does not come.
async fn upload(api: &Api) -> impl Future<Output = Ended> + use<> {
    let (opened, is_open) = oneshot::channel::<()>();
    let line = format!("{}\n", json!({"topic": "deal.won"}));
    let lines = futures_util::stream::iter([Ok::<_, std::io::Error>(line)]);
    let request = api
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(
            lines.chain(futures_util::stream::pending()),
        ));
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut response = request.send().await.unwrap();
        let first = response.chunk().await.unwrap().expect("a result line");
        assert!(
            String::from_utf8_lossy(&first).contains("cursor"),
            "{first:?}"
        );
        opened.send(()).unwrap();
        let mut said = String::new();
        while let Ok(Some(more)) = response.chunk().await {
            said.push_str(&String::from_utf8_lossy(&more));
        }
        ended("upload", said)
    });
    is_open.await.expect("the upload has begun");
    async move { running.join_next().await.unwrap().unwrap() }
}
