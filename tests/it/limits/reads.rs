//! Rates of reads of history.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::{caller, header, server, wait_as_told};
use crate::support::{Api, Server, TestDb};

const EVENTS: usize = 4_000;

fn number(event: &Value) -> usize {
    usize::try_from(event["data"].as_u64().unwrap()).unwrap()
}

/// More events than the window holds.
async fn with_history(db: &TestDb, limits: &[&str]) -> (Server, Api) {
    let server = server(db, &[&["--window-events", "2000"], limits].concat()).await;
    let api = caller(&server, "acme", "one");
    for first in (0..EVENTS).step_by(1_000) {
        let events: Vec<_> = (first..first + 1_000)
            .map(|n| json!({"topic": "a.b", "data": n}))
            .collect();
        api.append(&json!(events)).await;
    }
    (server, api)
}

#[tokio::test]
async fn pages_of_history_are_refused_beyond_the_rate_and_pages_of_the_window_are_not() {
    let db = TestDb::new().await;
    let (server, api) = with_history(&db, &["--credential-reads-rate", "1:3"]).await;
    let page = |limit: usize| {
        let path = format!("/v1/events?after=earliest&limit={limit}");
        api.request(Method::GET, &path).send()
    };
    let mut refused = None;
    for limit in 1..50 {
        let answer = page(limit).await.unwrap();
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        assert!(header(&answer, "ratelimit-policy").starts_with("\"credential-reads\";q=3;w=3"));
        assert!(header(&answer, "ratelimit").starts_with("\"credential-reads\";r="));
    }
    let refused = refused.expect("one is refused");
    let latest = api.page("latest", "").await;
    assert_eq!(latest["has_more"], false, "who is live is not concerned");
    let others = caller(&server, "acme", "two")
        .page("earliest", "&limit=77")
        .await;
    assert_eq!(others["events"].as_array().unwrap().len(), 77);
    let since = api.request(
        Method::GET,
        "/v1/events?since=2020-01-01T00:00:00Z&limit=60",
    );
    assert_eq!(since.send().await.unwrap().status(), 429);
    wait_as_told(&refused).await;
    assert_eq!(page(99).await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn streams_and_sockets_that_catch_up_wait_their_turn_and_live_events_do_not() {
    let db = TestDb::new().await;
    let (server, api) = with_history(&db, &["--tenant-reads-rate", "4:1"]).await;
    let began = Instant::now();
    let mut ws = api.ws().await;
    ws.subscribe("live", &["live.*"], "latest").await;
    ws.subscribe("old", &["a.*"], "earliest").await;
    let mut stream = api.sse("topics=a.*&after=earliest", None).await.unwrap();
    // Behind the first page of the old ones, and long before their last.
    api.append(&json!({"topic": "live.now"})).await;
    let (mut old, mut live_after) = (Vec::new(), None);
    while old.len() < EVENTS || live_after.is_none() {
        let frame = ws.until("events").await;
        for event in frame["events"].as_array().unwrap() {
            if frame["id"] == "live" {
                live_after = Some(old.len());
            } else {
                old.push(number(event));
            }
        }
    }
    assert_eq!(old, (0..EVENTS).collect::<Vec<_>>());
    assert!(live_after.unwrap() < EVENTS / 2, "{live_after:?}");
    let mut streamed = Vec::new();
    while streamed.len() < EVENTS {
        let (events, _) = stream.events().await.unwrap().expect("it goes on");
        streamed.extend(events.iter().map(number));
    }
    assert_eq!(streamed, (0..EVENTS).collect::<Vec<_>>());
    // 2,000 of each come from history, 250 at a time, of which few are read for both: eight reads at least.
    assert!(
        began.elapsed().as_millis() >= 1_750,
        "{:?}",
        began.elapsed()
    );
    server.stop().await;
}
