//! NDJSON uploads: slowed down, and complete.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{caller, server};
use crate::support::TestDb;

#[tokio::test]
async fn an_upload_over_its_rate_takes_its_time_and_is_complete() {
    let db = TestDb::new().await;
    let limits = [
        "--tenant-events-rate",
        "200:200",
        "--credential-bytes-rate",
        "100000",
    ];
    let server = server(&db, &limits).await;
    let api = caller(&server, "acme", "one");
    let lines: String = (0..700)
        .map(|n| json!({"topic": "a.b", "data": n}).to_string() + "\n")
        .collect();
    let began = Instant::now();
    let upload = api.request(Method::POST, "/v1/events").body(lines);
    let upload = upload.header("content-type", "application/x-ndjson");
    let answer = upload.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("ratelimit-policy"));
    let results = answer.text().await.unwrap();
    let took = began.elapsed();
    let results: Vec<Value> = results
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(results.len(), 700);
    assert!(results.iter().all(|result| result["cursor"].is_string()));
    // 200 at once, and 500 at 200 a second.
    assert!(took >= Duration::from_millis(2_400), "{took:?}");
    let page = api.page("earliest", "&limit=1000").await;
    let stored: Vec<u64> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["data"].as_u64().unwrap())
        .collect();
    assert_eq!(stored, (0..700).collect::<Vec<_>>());
    server.stop().await;
}

/// Nobody holds a place for ever.
#[tokio::test]
async fn an_upload_that_waits_for_a_minute_is_told_to_come_back() {
    let db = TestDb::new().await;
    let server = server(&db, &["--credential-bytes-rate", "10:10"]).await;
    let api = caller(&server, "acme", "one");
    // At ten bytes a second it would take more than a minute and a half.
    let lines = json!({"topic": "a.b", "data": "x".repeat(1_000)}).to_string();
    let began = Instant::now();
    let upload = api.request(Method::POST, "/v1/events").body(lines);
    let upload = upload.header("content-type", "application/x-ndjson");
    let results = upload.send().await.unwrap().text().await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_mins(1), "{took:?}: {results}");
    let last: Value = serde_json::from_str(results.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "/problems/rate-limited", "{results}");
    server.stop().await;
}
