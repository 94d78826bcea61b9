//! A slow reader costs a cursor, not memory, and slows nobody; a reader costs only what it matches.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::Ws;
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
    let writer = db.connect().await;
    let write = async {
        for batch in 0..EVENTS / 20 {
            let statement = format!(
                "INSERT INTO tidewire.events (tenant, id, topic, data)
                 SELECT 'dev', n::text, 'big', to_jsonb(repeat('x', {EVENT_BYTES}))
                   FROM generate_series({}, {}) AS n",
                batch * 20,
                batch * 20 + 19
            );
            writer.batch_execute(&statement).await.unwrap();
        }
    };
    let read = async {
        let mut next = 0;
        let mut most = 0;
        while next < EVENTS {
            let (events, _) = reader.events().await.unwrap().unwrap();
            for event in events {
                assert_eq!(event["id"], next.to_string(), "in order, nothing twice");
                next += 1;
            }
            most = raw::resident_bytes(server.pid()).max(most);
        }
        most
    };
    let ((), most) = tokio::join!(write, read);
    let most = most.saturating_sub(before);
    // What a page for each reader, the window, the cache of pages and the allocator take. To keep what flows once, shared
    // by all who stand still, would take 190 MiB; for each of them, 2 GB.
    assert!(most < 150 << 20, "{} MiB", most >> 20);
    // A stalled reader goes on where it stood, and misses nothing.
    resumes(&server, stalled_sockets.pop().unwrap()).await;
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

/// Reads a stalled socket to the end. If it stood still for too long it is closed, and comes back with its cursor.
async fn resumes(server: &Process, mut ws: Ws) {
    let mut next = 0;
    let mut cursor = None;
    while next < EVENTS {
        let frame = match ws.frame_or_close().await {
            Ok(frame) => frame,
            Err(code) => {
                assert_eq!(code, 1013);
                let after: String = cursor.clone().expect("something arrived before");
                ws = server.api.ws().await;
                ws.subscribe("s", &["*"], &after).await
            }
        };
        assert_ne!(frame["type"], "gap", "{frame}");
        if frame["type"] != "events" {
            continue;
        }
        for event in frame["events"].as_array().unwrap() {
            assert_eq!(event["id"], next.to_string(), "in order, nothing twice");
            next += 1;
        }
        cursor = frame["cursor"].as_str().map(str::to_owned);
    }
}

/// Readers that are behind take turns; one that does not take its page must not keep the turn.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_while_they_catch_up_hold_up_nobody_who_catches_up() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let data = "x".repeat(100_000);
    for batch in 0..4 {
        let events: Vec<_> = (0..50)
            .map(|n| json!({"id": format!("{}", batch * 50 + n), "topic": "big", "data": data}))
            .collect();
        server.api.append(&json!(events)).await;
    }
    // 20 MB each: more than the line takes. They subscribe and never read.
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let open = async {
            let mut ws = server.api.ws().await;
            ws.subscribe("s", &["*"], "earliest").await;
            (ws, server.api.sse("after=earliest", None).await.unwrap())
        };
        let opened = tokio::time::timeout(Duration::from_secs(10), open).await;
        stalled.push(opened.expect("its turn"));
    }
    let mut reader = server.api.ws().await;
    reader.subscribe("s", &["*"], "earliest").await;
    let mut next = 0;
    while next < 200 {
        let frame = tokio::time::timeout(Duration::from_secs(10), reader.until("events")).await;
        for event in frame.expect("its turn")["events"].as_array().unwrap() {
            assert_eq!(event["id"], next.to_string());
            next += 1;
        }
    }
    drop(stalled);
    server.stop().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
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
