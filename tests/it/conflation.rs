//! Subscriptions that want the newest of each topic and subject alone, and no more often than they say.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

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
