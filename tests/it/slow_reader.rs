//! A slow reader costs a cursor, not memory, and slows nobody; a reader costs only what it matches.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Process, Server, TestDb, eventually, raw};

/// Events of 100 KB each: 200 MB in all.
const EVENTS: usize = 2_000;
const EVENT_BYTES: usize = 100_000;

#[tokio::test]
async fn readers_that_stop_reading_cost_no_memory_and_slow_nobody() {
    let db = TestDb::new().await;
    let server = Process::start(
        &db.url,
        &[
            "--log",
            "warn",
            "--window-bytes",
            "8388608",
            "--window-events",
            "2000",
        ],
    )
    .await;
    server.api.append(&json!({"topic": "warm"})).await;
    let mut stalled_sockets = Vec::new();
    let mut stalled_streams = Vec::new();
    for _ in 0..5 {
        let mut ws = server.api.ws().await;
        ws.subscribe("s", &["*"], "latest").await;
        stalled_sockets.push(ws);
        stalled_streams.push(server.api.sse("after=latest", None).await.unwrap());
    }
    let before = raw::resident_bytes(server.pid());
    let mut reader = server.api.sse("after=latest", None).await.unwrap();
    let api = server.api.clone();
    let write = async move {
        let pad = "x".repeat(EVENT_BYTES);
        for batch in 0..EVENTS / 20 {
            let events: Vec<_> = (0..20)
                .map(|n| json!({"id": format!("{}", batch * 20 + n), "topic": "big", "data": pad}))
                .collect();
            api.append(&json!(events)).await;
        }
    };
    let read = async {
        let (mut next, mut most) = (0, 0);
        while next < EVENTS {
            let (events, _) = reader.events().await.unwrap().unwrap();
            for event in events {
                assert_eq!(event["id"], next.to_string(), "in order, nothing twice");
                next += 1;
            }
            most = most.max(raw::resident_bytes(server.pid()));
        }
        most
    };
    let ((), most) = tokio::join!(write, read);
    let grown = most.saturating_sub(before);
    assert!(grown < 150 << 20, "{} MiB", grown >> 20);
    // A stalled reader goes on where it stood, and misses nothing.
    let mut stalled = stalled_streams.pop().unwrap();
    let mut next = 0;
    while next < EVENTS {
        let (events, _) = stalled.events().await.unwrap().unwrap();
        for event in events {
            assert_eq!(event["id"], next.to_string());
            next += 1;
        }
    }
}

#[tokio::test]
async fn of_a_thousand_sessions_those_that_match_get_the_event() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for batch in 0..10 {
        let opened = join_all((0..50).map(|_| server.api.ws())).await;
        for (number, mut ws) in opened.into_iter().enumerate() {
            let topic = if number % 50 == batch {
                "hit.*".to_owned()
            } else {
                format!("miss.n{number}")
            };
            ws.subscribe("s", &[&topic], "latest").await;
            sockets.push(ws);
        }
        let opened = join_all((0..50).map(|number| {
            let topic = format!("miss.n{number}");
            let api = server.api.clone();
            async move {
                api.sse(&format!("topics={topic}&after=latest"), None)
                    .await
                    .unwrap()
            }
        }));
        streams.extend(opened.await);
    }
    assert_eq!((sockets.len(), streams.len()), (500, 500));
    assert_eq!(server.app.connections(), 1_000);
    assert_eq!(server.app.hub.size().0, 1_000);
    for ws in &mut sockets {
        ws.until("live").await;
    }
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    }
    let answer = server
        .api
        .append(&json!({"id": "one", "topic": "hit.now"}))
        .await;
    server
        .api
        .page(
            "latest",
            &format!("&at_least={}", answer[0]["cursor"].as_str().unwrap()),
        )
        .await;
    // A socket delivers what it has before it answers a second ping.
    let mut hits = 0;
    for ws in &mut sockets {
        for timestamp in 1..=2 {
            ws.send(json!({"type": "ping", "timestamp": timestamp}))
                .await;
            loop {
                let frame = ws.next().await.unwrap().unwrap();
                if frame["type"] == "pong" {
                    break;
                }
                if frame["type"] == "events" {
                    assert_eq!(frame["events"][0]["id"], "one");
                    hits += 1;
                }
            }
        }
    }
    assert_eq!(hits, 10);
    drop((sockets, streams));
    eventually(Duration::from_secs(10), async || {
        match server.app.hub.size().0 {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    server.stop().await;
}
