//! Subscriptions that want the newest of each topic and subject alone, and no more often than they say.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Ws;
use crate::support::{Server, TestDb};

fn subscribe(conflate_ms: u64, after: &str) -> Value {
    json!({"type": "subscribe", "id": "s", "topics": ["deal.*"], "after": after, "conflate_ms": conflate_ms})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_each_topic_and_subject_comes_once_an_interval() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.send(subscribe(500, "latest")).await;
    ws.until("live").await;
    let writer = server.api.clone();
    let writing = async {
        let began = Instant::now();
        let mut n = 0_u64;
        while began.elapsed() < Duration::from_secs(3) {
            let events: Vec<Value> = (0..10)
                .map(|k| json!({"topic": "deal.price", "subject": format!("s-{}", (n + k) % 4), "data": n + k}))
                .collect();
            writer.append(&json!(events)).await;
            n += 10;
        }
        // Another topic of the same subject is another.
        writer
            .append(&json!([{"topic": "deal.end", "subject": "s-0"}, {"topic": "deal.price", "subject": "s-0", "data": n}]))
            .await;
        n
    };
    let reading = async {
        let (mut frames, mut newest, mut counted) = (Vec::new(), HashMap::new(), 0);
        loop {
            let frame = ws.until("events").await;
            frames.push(Instant::now());
            counted += frame["conflated"].as_u64().unwrap_or_default();
            let events = frame["events"].as_array().unwrap();
            counted += u64::try_from(events.len()).unwrap();
            let mut keys = std::collections::HashSet::new();
            for event in events {
                let key = (event["topic"].to_string(), event["subject"].to_string());
                assert!(keys.insert(key.clone()), "{key:?} twice in a frame");
                newest.insert(key, event["data"].as_u64());
            }
            let has_ended = events.iter().any(|event| event["topic"] == "deal.end");
            if has_ended {
                return (frames, newest, counted, frame["cursor"].clone());
            }
        }
    };
    let (written, (frames, newest, counted, cursor)) = tokio::join!(writing, reading);
    assert!(written > 100, "{written}");
    assert_eq!(counted, written + 2, "each was delivered or is counted");
    for pair in frames.windows(2) {
        assert!(pair[1] - pair[0] > Duration::from_millis(450), "{frames:?}");
    }
    assert!((5..=9).contains(&frames.len()), "{frames:?}");
    let of = |topic: &str, subject: &str| newest[&(format!("{topic:?}"), format!("{subject:?}"))];
    assert_eq!(of("deal.price", "s-0"), Some(written));
    let last = (0..written).rev().find(|data| data % 4 == 3);
    assert_eq!(of("deal.price", "s-3"), last);
    // Nothing is left behind the cursor.
    let page = server.api.page(cursor.as_str().unwrap(), "").await;
    assert_eq!(page["events"], json!([]), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn history_is_conflated_and_intervals_are_bounded() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let events: Vec<Value> = (0..100)
        .map(|n| json!({"topic": "deal.price", "subject": format!("s-{}", n % 5), "data": n}))
        .collect();
    server.api.append(&json!(events)).await;
    let mut ws = server.api.ws().await;
    ws.send(subscribe(60_001, "earliest")).await;
    assert_eq!(ws.until("error").await["code"], "invalid-parameter");
    ws.send(subscribe(60_000, "earliest")).await;
    let frame = ws.until("events").await;
    let seen: Vec<u64> = frame["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["data"].as_u64().unwrap())
        .collect();
    assert_eq!(seen, [95, 96, 97, 98, 99]);
    assert_eq!(frame["conflated"], 95);
    ws.until("live").await;
    server.stop().await;
}

/// Each of a subject of its own, so that nothing is left out: what an interval brings is not held at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_bounded_however_much_comes_within_an_interval() {
    const EVENTS: usize = 160;
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.send(subscribe(5_000, "latest")).await;
    ws.until("live").await;
    server.api.append(&json!({"topic": "deal.first"})).await;
    ws.until("events").await;
    let data = "x".repeat(100_000);
    let event = |n: usize| json!({"id": n.to_string(), "topic": "deal.price", "subject": format!("s-{n}"), "data": data});
    for first in (0..EVENTS).step_by(20) {
        let events = (first..first + 20).map(event).collect();
        server.api.append(&events).await;
    }
    let mut next = 0;
    while next < EVENTS {
        let message = tokio::time::timeout(Duration::from_secs(30), ws.socket.next()).await;
        let Message::Text(text) = message.unwrap().unwrap().unwrap() else {
            continue;
        };
        assert!(text.len() < (2 << 20) + (64 << 10), "{}", text.len());
        let frame: Value = serde_json::from_str(&text).unwrap();
        for event in frame["events"].as_array().into_iter().flatten() {
            assert_eq!(event["id"], next.to_string(), "in order, none left out");
            next += 1;
        }
    }
    server.stop().await;
}

/// The events that come before the second of two pongs: a socket delivers what it has before it answers a second ping.
async fn delivered_now(ws: &mut Ws) -> Vec<Value> {
    let mut frames = Vec::new();
    for timestamp in 1..=2 {
        ws.send(json!({"type": "ping", "timestamp": timestamp}))
            .await;
        loop {
            let frame = ws.next().await.unwrap().unwrap();
            match frame["type"].as_str().unwrap() {
                "pong" => break,
                "events" => frames.push(frame),
                _ => {}
            }
        }
    }
    frames
}

/// A heartbeat comes within half a minute, and two of them do not end an interval of one. What is kept back lies behind no
/// cursor that the client is told.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_neither_wait_for_an_interval_nor_end_it_nor_pass_what_is_kept_back() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    for (id, topic) in [("held", "held.*"), ("quiet", "quiet.*")] {
        ws.send(json!({"type": "subscribe", "id": id, "topics": [topic], "conflate_ms": 60_000}))
            .await;
        ws.until("live").await;
    }
    let (began, api) = (Instant::now(), &server.api);
    let mut held = String::new();
    for (id, topic) in [("held", "held.a"), ("quiet", "quiet.a")] {
        api.append(&json!({"topic": topic})).await;
        let frame = ws.until("events").await;
        assert_eq!(frame["id"], id, "the first comes at once");
        if id == "held" {
            frame["cursor"].as_str().unwrap().clone_into(&mut held);
        }
    }
    api.append(&json!({"topic": "held.b", "id": "kept back"}))
        .await;
    let past = api.append(&json!({"topic": "other"})).await[0]["cursor"].clone();
    // The subscription without news has its place moved by the heartbeat, the other one has not.
    loop {
        let frame = ws.next().await.unwrap().unwrap();
        assert_eq!(frame["type"], "cursor", "{frame}");
        if frame["id"] == "held" {
            frame["cursor"].as_str().unwrap().clone_into(&mut held);
        } else if frame["cursor"].as_str() >= past.as_str() {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(35), "{began:?}");
    api.append(&json!({"topic": "quiet.b"})).await;
    let frames = delivered_now(&mut ws).await;
    assert!(began.elapsed() < Duration::from_secs(55), "it says nothing");
    assert!(frames.is_empty(), "before its interval is over: {frames:?}");
    let page = api.page(&held, "&topics=held.*").await;
    assert_eq!(page["events"][0]["id"], "kept back", "{page}");
    server.stop().await;
}
