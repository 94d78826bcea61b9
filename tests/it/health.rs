//! What `/v1/status` says is the matter: by name, with what was seen and what to do.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// The issue of this name, once there is one, and the score with it.
async fn issue(api: &Api, code: &str) -> (Value, u64) {
    eventually(PATIENCE, || async {
        let status = api.get("/v1/status").await;
        let issues = status["issues"].as_array().unwrap();
        let found = issues.iter().find(|issue| issue["code"] == code).cloned();
        found
            .map(|issue| (issue, status["health"].as_u64().unwrap()))
            .ok_or(status)
    })
    .await
}

async fn until_well(api: &Api) {
    eventually(PATIENCE, || async {
        let status = api.get("/v1/status").await;
        (status["health"] == 100 && status["issues"] == json!([]))
            .then_some(())
            .ok_or(status)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stays_idle_in_its_transaction_is_named() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    until_well(&server.api).await;
    let open = db.connect().await;
    let begin = "SET application_name = 'nightly import'; BEGIN; SELECT tidewire.append('a')";
    open.batch_execute(begin).await.unwrap();
    let pid: i32 = open
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let (issue, health) = issue(&server.api, "open-writer").await;
    let (cause, advice) = (issue["cause"].to_string(), issue["advice"].to_string());
    assert!(
        cause.contains(&pid.to_string()) && cause.contains("nightly import"),
        "{issue}"
    );
    assert!(cause.contains("idle in transaction"), "{issue}");
    assert!(advice.contains("pg_terminate_backend"), "{issue}");
    assert!(health < 100, "{health}");
    open.batch_execute("COMMIT").await.unwrap();
    until_well(&server.api).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_misses_its_target_is_named_with_its_quantile() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "s", "topics": ["a"]}))
        .await;
    ws.until("live").await;
    let open = db.connect().await;
    open.batch_execute("BEGIN; SELECT tidewire.append('held')")
        .await
        .unwrap();
    // Stored at once, and not to be delivered before the other ends.
    let many: Vec<Value> = (0..150).map(|_| json!({"topic": "a"})).collect();
    server.api.append(&json!(many)).await;
    let began = std::time::Instant::now();
    eventually(PATIENCE, || async {
        let held = began.elapsed();
        (held > Duration::from_millis(400))
            .then_some(())
            .ok_or(held)
    })
    .await;
    open.batch_execute("COMMIT").await.unwrap();
    let (issue, _) = issue(&server.api, "slow-normal").await;
    assert!(issue["cause"].to_string().contains("p99"), "{issue}");
    let status = server.api.get("/v1/status").await;
    let normal = &status["latency"]["normal"];
    assert!(normal["events"].as_u64().unwrap() >= 150, "{normal}");
    assert!(normal["p50_ms"].as_f64().unwrap() >= 250.0, "{normal}");
    assert_eq!(status["latency"]["critical"], Value::Null, "{status}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_paused_or_kept_from_its_steps_is_named() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    until_well(&server.api).await;
    let act = async |action: &str| {
        let path = format!("/v1/admin/consumers/watch/{action}");
        let answer = server.api.request(Method::POST, &path).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{action}");
    };
    act("pause").await;
    let (paused, health) = issue(&server.api, "consumer-paused").await;
    assert!(paused["cause"].to_string().contains("watch"), "{paused}");
    assert!(paused["advice"].to_string().contains("resume"), "{paused}");
    assert!(health < 100, "{health}");
    act("resume").await;
    until_well(&server.api).await;
    // Whoever changes watches keeps it from looking.
    let open = db.connect().await;
    let hold = "BEGIN; SELECT pg_advisory_xact_lock(1953064041, 0); LOCK TABLE tidewire.watches IN ACCESS EXCLUSIVE MODE";
    open.batch_execute(hold).await.unwrap();
    let (behind, _) = issue(&server.api, "consumer-behind").await;
    let (cause, advice) = (behind["cause"].to_string(), behind["advice"].to_string());
    assert!(
        cause.contains("watch") && cause.contains("no step"),
        "{behind}"
    );
    assert!(advice.contains("pg_locks"), "{behind}");
    let status = server.api.get("/v1/status").await;
    assert_eq!(status["consumers"][0]["is_active"], false, "{status}");
    open.batch_execute("ROLLBACK").await.unwrap();
    until_well(&server.api).await;
    server.stop().await;
}
