//! A subscription that waits for the database waits by itself: what else its socket does goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Ws;
use crate::support::{Proxy, Server, TestDb};

/// 4 MB, of which the window holds half.
const EVENTS: usize = 40;
const EVENT_BYTES: usize = 100_000;
const AT_ONCE: Duration = Duration::from_millis(1_500);
const SMALL_WINDOW: &[&str] = &["--window-events", "2000", "--window-bytes", "2_097_152"];

/// What the two subscriptions of a socket have had, by their names.
#[derive(Default)]
struct Seen {
    past: Vec<Value>,
    present: Vec<Value>,
}

impl Seen {
    /// Takes a frame; whether it answers a ping.
    fn take(&mut self, frame: &Value) -> bool {
        for event in frame["events"].as_array().into_iter().flatten() {
            let ids = if frame["id"] == "past" {
                &mut self.past
            } else {
                &mut self.present
            };
            ids.push(event["id"].clone());
        }
        assert_ne!(frame["type"], "error", "{frame}");
        frame["type"] == "pong"
    }

    /// Pings for so long; each is answered at once.
    async fn ping(&mut self, ws: &mut Ws, during: Duration) {
        let began = Instant::now();
        while began.elapsed() < during {
            let sent = Instant::now();
            ws.send(json!({"type": "ping", "timestamp": 1})).await;
            while !self.take(&ws.next().await.unwrap().unwrap()) {}
            assert!(sent.elapsed() < AT_ONCE, "{:?}", sent.elapsed());
        }
    }
}

/// Outages in which every question takes long, and in which each fails at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_history_in_an_outage_holds_up_nothing_else_of_its_socket() {
    for is_silent in [true, false] {
        let db = TestDb::new().await;
        let (proxy, url) = Proxy::before_database(&db.url).await;
        let server = Server::start_with(&url, SMALL_WINDOW).await;
        let data = "x".repeat(EVENT_BYTES);
        let event = |n: usize| json!({"id": format!("old-{n}"), "topic": "old", "data": data});
        for first in (0..EVENTS).step_by(20) {
            let events = (first..first + 20).map(event).collect();
            server.api.append(&events).await;
        }
        let before = server.api.append(&json!({"topic": "new"})).await[0]["cursor"].clone();
        let ids: Vec<Value> = (0..3).map(|n| json!(format!("new-{n}"))).collect();
        let new: Vec<Value> = ids
            .iter()
            .map(|id| json!({"id": id, "topic": "new"}))
            .collect();
        let last = server.api.append(&json!(new)).await[2]["cursor"].clone();
        let at_least = format!("&at_least={}", last.as_str().unwrap());
        server.api.page("latest", &at_least).await;
        let mut ws = server.api.ws().await;
        if is_silent {
            proxy.hold();
        } else {
            proxy.cut();
        }
        let mut seen = Seen::default();
        for (id, topic, after) in [
            ("past", "old", json!("earliest")),
            ("present", "new", before),
        ] {
            ws.send(json!({"type": "subscribe", "id": id, "topics": [topic], "after": after}))
                .await;
        }
        // Longer than the database is waited for, and than it takes until it is left alone.
        seen.ping(&mut ws, Duration::from_secs(8)).await;
        assert_eq!(seen.present, ids, "the window answers");
        assert_eq!(seen.past.len(), 0);
        proxy.restore();
        while seen.past.len() < EVENTS {
            seen.take(&ws.next().await.unwrap().unwrap());
        }
        let all: Vec<Value> = (0..EVENTS).map(|n| json!(format!("old-{n}"))).collect();
        assert_eq!(seen.past, all, "in order, each once");
        server
            .api
            .append(&json!({"id": "live", "topic": "old"}))
            .await;
        while seen.past.last() != Some(&json!("live")) {
            seen.take(&ws.next().await.unwrap().unwrap());
        }
        assert_eq!(seen.past.len(), EVENTS + 1);
        drop(ws);
        server.stop().await;
    }
}

/// One at a time has history read for it: each gets all of it, and who has ended meanwhile nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn several_that_are_behind_take_turns_and_an_end_is_an_end() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let data = "x".repeat(EVENT_BYTES);
    let event = |n: usize| json!({"id": n.to_string(), "topic": "old", "data": data});
    for first in (0..EVENTS).step_by(20) {
        let events = (first..first + 20).map(event).collect();
        server.api.append(&events).await;
    }
    let mut ws = server.api.ws().await;
    let names = ["a", "b", "c", "d"];
    for id in names {
        ws.send(json!({"type": "subscribe", "id": id, "topics": ["*"], "after": "earliest"}))
            .await;
    }
    ws.send(json!({"type": "unsubscribe", "id": "a"})).await;
    let (mut next, mut has_ended) = ([0; 4], false);
    while next[1..] != [EVENTS; 3] || !has_ended {
        let frame = ws.next().await.unwrap().unwrap();
        let which = names.iter().position(|name| frame["id"] == *name).unwrap();
        assert!(which > 0 || !has_ended, "it has ended: {frame}");
        has_ended |= frame["type"] == "unsubscribed";
        for event in frame["events"].as_array().into_iter().flatten() {
            assert_eq!(event["id"], next[which].to_string(), "in order, each once");
            next[which] += 1;
        }
    }
    // The name is free, and its place is its own.
    ws.send(json!({"type": "subscribe", "id": "a", "topics": ["*"], "after": "earliest"}))
        .await;
    let mut again = 0;
    while again < EVENTS {
        let frame = ws.next().await.unwrap().unwrap();
        for event in frame["events"].as_array().into_iter().flatten() {
            assert_eq!(
                (&frame["id"], &event["id"]),
                (&json!("a"), &json!(again.to_string()))
            );
            again += 1;
        }
    }
    server.stop().await;
}
