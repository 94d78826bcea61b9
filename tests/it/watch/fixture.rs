//! Watches, signs of life, and what is told of them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::client::json_of;
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually};

/// Longer than a takeover takes on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A server, its database, and an administrator of `acme`.
pub async fn start() -> (TestDb, Server, Api) {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    (db, server, acme)
}

/// PUT of a watch: status and answer.
pub async fn try_watch(api: &Api, name: &str, watch: &Value) -> (StatusCode, Value) {
    let path = format!("/v1/watches/{name}");
    let request = api.request(Method::PUT, &path).json(watch);
    json_of(request.send().await.unwrap()).await
}

/// Sets a watch.
pub async fn watch(api: &Api, name: &str, topics: &[&str], within_s: i32) -> Value {
    let wanted = json!({"topics": topics, "within_s": within_s});
    let (status, answer) = try_watch(api, name, &wanted).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// DELETE of a watch.
pub async fn unwatch(api: &Api, name: &str) -> StatusCode {
    let path = format!("/v1/watches/{name}");
    let request = api.request(Method::DELETE, &path);
    request.send().await.unwrap().status()
}

/// A sign of life of each of these.
pub async fn beat(api: &Api, subjects: &[&str]) {
    let beat = |subject: &&str| json!({"topic": "agent.heartbeat.ok", "subject": subject});
    let beats: Vec<Value> = subjects.iter().map(beat).collect();
    api.append(&json!(beats)).await;
}

/// What the watch has said of a tenant's subject: `stalled` and `recovered`, in order.
pub async fn told(client: &Client, tenant: &str, subject: &str) -> Vec<String> {
    let query = "SELECT substr(topic, 7) FROM tidewire.events
                  WHERE tenant = $1 AND subject = $2 AND source = 'tidewire.watch' ORDER BY seq";
    let rows = client.query(query, &[&tenant, &subject]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Until exactly this was said of a subject of `acme`.
pub async fn until_told(client: &Client, subject: &str, wanted: &[&str]) {
    eventually(PATIENCE, || async {
        let told = told(client, "acme", subject).await;
        (told == wanted).then_some(()).ok_or(told)
    })
    .await;
}

/// How many subjects are known.
pub async fn watched(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM tidewire.watched";
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Until so many are.
pub async fn until_watched(client: &Client, wanted: i64) {
    eventually(PATIENCE, || async {
        let watched = watched(client).await;
        (watched == wanted).then_some(()).ok_or(watched)
    })
    .await;
}

/// Until the watch has looked again and again, for so long by the database's clock.
pub async fn looks_for(client: &Client, seconds: f64) {
    let now = "SELECT clock_timestamp()::text";
    let now: String = client.query_one(now, &[]).await.unwrap().get(0);
    let looked = "SELECT looked_at > $1::text::timestamptz + $2 * interval '1 second' FROM tidewire.watch_clock";
    eventually(PATIENCE, || async {
        let row = client.query_one(looked, &[&now, &seconds]).await.unwrap();
        row.get::<_, bool>(0).then_some(()).ok_or("not yet")
    })
    .await;
}
