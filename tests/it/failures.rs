//! Faults of ours: the client is told nothing but an id, and the log says under it what happened.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Process, TestDb, eventually};

#[tokio::test]
async fn the_log_says_why_under_the_requests_id() {
    let db = TestDb::new().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = Process::start_logging(&db.url, WITH_TOKENS, log.reopen().unwrap()).await;
    let admin = server.api.with_token(&token::token("acme"));
    let client = db.connect().await;
    let take_away = "ALTER TABLE tidewire.retention_rules RENAME TO elsewhere";
    client.batch_execute(take_away).await.unwrap();
    let request = admin.request(Method::GET, "/v1/retention");
    let answer = request
        .header("x-request-id", "mine-1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["x-request-id"], "mine-1");
    let body = answer.text().await.unwrap();
    assert!(!body.contains("retention_rules"), "{body}");
    // What the database quotes of an event is nobody's to read here.
    let forbid = "ALTER TABLE tidewire.events ADD CONSTRAINT quiet CHECK (data->>'secret' IS NULL)";
    client.batch_execute(forbid).await.unwrap();
    let event = json!({"topic": "deal.won", "data": {"secret": "s3ntinel"}});
    let (status, body) = admin.try_append(&event).await;
    assert_eq!(status, 422, "{body}");
    let line = eventually(Duration::from_secs(5), || async {
        let lines = std::fs::read_to_string(log.path()).unwrap();
        let line = lines.lines().find(|line| line.contains("mine-1"));
        line.map(str::to_owned).ok_or(lines)
    })
    .await;
    for part in ["SQLSTATE 42P01", "retention_rules", "a request failed"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let lines = std::fs::read_to_string(log.path()).unwrap();
    assert!(!lines.contains("s3ntinel"), "{lines}");
    server.kill().await;
}

/// What a server does now and then fails on a row: the line says where, and not what stands in it.
#[tokio::test]
async fn upkeep_that_fails_quotes_no_row() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let fails = |code: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION tidewire.retain_by_rules() RETURNS boolean LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 's3ntinel' USING ERRCODE = '{code}'; END $$"
        )
    };
    for (code, is_quoted) in [("22P02", false), ("TW503", true), ("55P03", true)] {
        client.batch_execute(&fails(code)).await.unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let server = Process::start_logging(&db.url, WITH_TOKENS, log.reopen().unwrap()).await;
        let line = eventually(Duration::from_secs(10), || async {
            let lines = std::fs::read_to_string(log.path()).unwrap();
            let line = lines
                .lines()
                .find(|line| line.contains("tenants' retention has not removed all that is old"));
            line.map(str::to_owned).ok_or(lines)
        })
        .await;
        server.kill().await;
        assert!(line.contains(&format!("SQLSTATE {code}")), "{line}");
        assert_eq!(line.contains("s3ntinel"), is_quoted, "{line}");
    }
}
