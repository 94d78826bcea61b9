//! `system.*` when it is needed most: it comes once a second, whatever the database does, and whoever else asks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::Ws;
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Proxy, Server, TestDb};

async fn watch(api: &Api) -> Ws {
    let mut ws = api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "w", "topics": ["system.health"]}))
        .await;
    ws.until("subscribed").await;
    ws
}

/// The next beat's health.
async fn beat(ws: &mut Ws) -> Value {
    ws.until("events").await["events"][0]["data"].take()
}

fn has_issue(health: &Value, code: &str) -> bool {
    let issues = health["issues"].as_array().unwrap();
    issues.iter().any(|issue| issue["code"] == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_while_the_database_is_away_and_says_so() {
    for is_silent in [false, true] {
        let db = TestDb::new().await;
        let (proxy, url) = Proxy::before_database(&db.url).await;
        let settings = ["--breaker-failures", "3", "--breaker-recovery-s", "3600"];
        let server = Server::start_with(&url, &settings).await;
        let mut ws = watch(&server.api).await;
        let health = beat(&mut ws).await;
        assert!(health["database"]["postgres"].is_string(), "{health}");
        if is_silent {
            proxy.hold();
        } else {
            proxy.cut();
        }
        let (began, mut beats) = (Instant::now(), 0);
        let health = loop {
            let health = beat(&mut ws).await;
            beats += 1;
            // What fails at once has failed often enough by then.
            let is_open =
                health["breaker"]["state"] == "open" && has_issue(&health, "breaker-open");
            let is_down = health["log"]["tail_is_up"] == false && health["database"].is_null();
            if (is_open || is_silent) && is_down && beats >= 8 {
                break health;
            }
        };
        assert!(has_issue(&health, "database-down"), "{health}");
        // Each second, but for a little of the machine's.
        let seconds = began.elapsed().as_secs_f64();
        assert!(
            f64::from(beats) > seconds * 0.8 - 1.0,
            "{beats} in {seconds}"
        );
        proxy.restore();
        // What is stored closes the breaker.
        while beat(&mut ws).await["health"] != 100 {
            let _ = server.api.try_append(&json!({"topic": "a"})).await;
        }
        drop(ws);
        server.stop().await;
    }
}

/// The database is asked in nobody's turn but the server's own.
#[tokio::test(flavor = "multi_thread")]
async fn administrators_that_crowd_hold_up_no_beat() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let [acme, beta] = ["acme", "beta"].map(|tenant| server.api.with_token(&token(tenant)));
    let mut watching = watch(&beta).await;
    beat(&mut watching).await;
    let holder = db.connect().await;
    let hold = "BEGIN; LOCK TABLE tidewire.sql_appends IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(hold).await.unwrap();
    // The last to listen, and then as many as may wait.
    let _crowds = watch(&acme).await;
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let acme = acme.clone();
        asking.spawn(async move { acme.try_get("/v1/status").await.0 });
    }
    // Somebody is refused: all places are taken.
    while asking.join_next().await.unwrap().unwrap() != 429 {}
    let began = Instant::now();
    for _ in 0..5 {
        beat(&mut watching).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(asking.len() > 10, "the crowd was there all the time");
    holder.batch_execute("ROLLBACK").await.unwrap();
    asking.join_all().await;
    server.stop().await;
}
