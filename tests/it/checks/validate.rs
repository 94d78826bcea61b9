//! `POST /v1/validate`.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::client::json_of;
use crate::support::token::{self, WITH_TOKENS, with_jti};
use crate::support::{Api, Server, TestDb, eventually};

async fn server(db: &TestDb) -> Server {
    let mut arguments = WITH_TOKENS.to_vec();
    arguments.extend(["--operator-tenant", "operators"]);
    Server::start_with(&db.url, &arguments).await
}

async fn validate(api: &Api, accept: &str, body: Value) -> reqwest::Response {
    let request = api
        .request(Method::POST, "/v1/validate")
        .header("accept", accept);
    request.json(&body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_checks_itself_in_tenants_of_its_own() {
    let db = TestDb::new().await;
    let server = server(&db).await;
    let operator = server.api.with_token(&token::token("operators"));
    let (status, report) =
        json_of(validate(&operator, "*/*", json!({"type": "quick"})).await).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(report["tenant"], "tidewire-check", "{report:#}");
    assert_eq!(report["type"], "quick");
    let skipped: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["outcome"] == "skipped")
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(skipped, ["reliability/breaker-reset"], "{report:#}");
    assert!(report["took_ms"].as_u64().unwrap() <= 10_000, "{report:#}");
    let client = db.connect().await;
    let count = async |query: &str| -> i64 { client.query_one(query, &[]).await.unwrap().get(0) };
    assert_eq!(count("SELECT count(*) FROM tidewire.events WHERE tenant LIKE 'tidewire-check%' AND topic LIKE 'check.%' AND data IS NOT NULL").await, 0);
    assert!(count("SELECT count(*) FROM tidewire.events WHERE tenant = 'tidewire-check' AND erased_at IS NOT NULL").await > 500);
    assert_eq!(
        count("SELECT count(*) FROM tidewire.api_keys WHERE revoked_at IS NULL").await,
        0
    );
    assert_eq!(
        count("SELECT count(*) FROM tidewire.api_keys WHERE tenant LIKE 'tidewire-check%'").await,
        2
    );
    assert_eq!(count("SELECT count(*) FROM tidewire.events WHERE tenant NOT LIKE 'tidewire-check%' AND topic LIKE 'check.%'").await, 0);
    let begun = operator
        .page("earliest", "&topics=tidewire.audit.validation.begun")
        .await;
    assert_eq!(
        begun["events"][0]["data"]["did"]["type"], "quick",
        "{begun}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_as_it_goes_and_one_runs_at_a_time() {
    let db = TestDb::new().await;
    let server = server(&db).await;
    let operator = server.api.with_token(&token::token("operators"));
    let quick = json!({"type": "quick"});
    let mut first = validate(&operator, "application/x-ndjson", quick.clone()).await;
    assert_eq!(first.status(), 200);
    let mut text = String::from_utf8(first.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let begun: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&begun["progress"], &begun["number"]),
        (&json!("begun"), &json!(1)),
        "{text}"
    );
    let second = validate(&operator, "*/*", quick.clone()).await;
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = second.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=11).contains(&wait), "{wait}");
    while let Some(chunk) = first.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let report = &lines.last().unwrap()["report"];
    assert_eq!(report["passed"], true, "{text}");
    assert_eq!(
        lines.len(),
        report["checks"].as_array().unwrap().len() * 2 + 1
    );
    // Over: the next one may run, and whoever leaves it does not end it.
    let mut third = validate(&operator, "text/event-stream", quick.clone()).await;
    let chunk = third.chunk().await.unwrap().unwrap();
    assert!(chunk.starts_with(b"data: {"), "{chunk:?}");
    drop(third);
    let fourth = validate(&operator, "*/*", quick).await;
    assert_eq!(fourth.status(), StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
    let alive = "SELECT count(*) FROM tidewire.api_keys WHERE revoked_at IS NULL";
    let alive: i64 = db
        .connect()
        .await
        .query_one(alive, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(alive, 0, "a server that stops takes the keys back");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_operators_and_its_tenants_are_nobodys() {
    let db = TestDb::new().await;
    let server = server(&db).await;
    let stranger = server.api.with_token(&token::token("acme"));
    let (status, _) = json_of(validate(&stranger, "*/*", json!({"type": "quick"})).await).await;
    assert_eq!(status, 403);
    let operator = server.api.with_token(&token::token("operators"));
    let (status, body) = json_of(validate(&operator, "*/*", json!({"type": "slow"})).await).await;
    assert_eq!(
        (status.as_u16(), &body["type"]),
        (400, &json!("/problems/invalid-parameter"))
    );
    for tenant in ["tidewire-check", "tidewire-check-other"] {
        let reserved = server.api.with_token(&token::token(tenant));
        let (status, body) = reserved.try_get("/v1/events").await;
        assert_eq!(status, 401, "{body}");
    }
    let (status, _) = server
        .api
        .with_token(&token::token("tidewire-checker"))
        .try_get("/v1/events")
        .await;
    assert_eq!(status, 200, "any other name is anybody's");
    server.stop().await;
}

/// Revokes a token as an operator does who has a database alone.
async fn end(client: &Client, jti: &str) {
    let revoke = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by) VALUES ('operators', 'jti', $1, 'operator')";
    client.execute(revoke, &[&jti]).await.unwrap();
}

/// It goes on, and nobody hears of it who may not.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_began_it_hears_no_more_when_the_credential_ends() {
    let db = TestDb::new().await;
    let server = server(&db).await;
    let client = db.connect().await;
    let performance = json!({"type": "performance"});
    let holder = server.api.with_token(&with_jti("operators", "lines"));
    let mut lines = validate(&holder, "application/x-ndjson", performance.clone()).await;
    let mut text = String::from_utf8(lines.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    end(&client, "lines").await;
    while let Some(chunk) = lines.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(!text.contains("\"report\""), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_report_is_refused_when_the_credential_ends() {
    let db = TestDb::new().await;
    let server = server(&db).await;
    let client = db.connect().await;
    let holder = server.api.with_token(&with_jti("operators", "report"));
    let mut asking = JoinSet::new();
    asking.spawn(async move {
        json_of(validate(&holder, "*/*", json!({"type": "performance"})).await).await
    });
    let begun =
        "SELECT count(*) FROM tidewire.events WHERE topic = 'tidewire.audit.validation.begun'";
    eventually(Duration::from_secs(10), || async {
        let begun: i64 = client.query_one(begun, &[]).await.unwrap().get(0);
        (begun == 1).then_some(()).ok_or(begun)
    })
    .await;
    end(&client, "report").await;
    let (status, problem) = asking.join_next().await.unwrap().unwrap();
    assert_eq!(status, 401, "{problem}");
    server.stop().await;
}
