//! For whom what is held is written, and for whom no more.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{PATIENCE, ids, is_open, send, settings};
use crate::metrics::text;
use crate::support::token::{WITH_TOKENS, token, with_jti};
use crate::support::{Api, Proxy, Server, TestDb, eventually};

const REVOKE: &str = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by) VALUES ('acme', 'jti', 'leaving', 'operator')";

/// What was heard of credentials is too old to write for anybody who has waited.
async fn are_credentials_late(server: &Server) {
    eventually(PATIENCE, || async {
        let late = server.app.access.registry().looked_before();
        (late > Duration::from_secs(3)).then_some(()).ok_or(late)
    })
    .await;
}

/// The result lines of an upload of these ids.
async fn upload(api: &Api, prefer: &str, ids: &[&str]) -> Vec<Value> {
    let line = |id: &&str| json!({"topic": "a.line", "id": id}).to_string();
    let lines: Vec<String> = ids.iter().map(line).collect();
    let request = api
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .header("prefer", prefer)
        .body(lines.join("\n"));
    let text = request.send().await.unwrap().text().await.unwrap();
    let answers = text.lines().map(|line| serde_json::from_str(line).unwrap());
    answers.collect()
}

/// The breaker stays closed: a lane tries again and again, in one turn.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lane_tries_again_is_not_written_for_a_credential_that_has_ended() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let arguments = [WITH_TOKENS, &["--breaker-failures", "1000"]].concat();
    let server = Server::start_with(&url, &arguments).await;
    let leaving = server.api.with_token(&with_jti("acme", "leaving"));
    leaving.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    let mut held = JoinSet::new();
    for id in ["one", "two"] {
        let (api, event) = (leaving.clone(), json!({"topic": "a.held", "id": id}));
        held.spawn(async move { send(&api, Some("wait=60"), &event).await.status().as_u16() });
    }
    // Lanes have them, and have tried.
    eventually(PATIENCE, || async {
        let now = text(&leaving).await;
        let tried = now.lines().filter_map(|line| {
            let line = line.strip_prefix("tidewire_retries_total{")?;
            line.rsplit_once(' ')?.1.parse::<f64>().ok()
        });
        let (waiting, _) = server.app.appender.waiting();
        let is_tried = tried.sum::<f64>() > 0.0 && waiting == 0;
        is_tried.then_some(()).ok_or(waiting)
    })
    .await;
    are_credentials_late(&server).await;
    db.connect().await.batch_execute(REVOKE).await.unwrap();
    proxy.restore();
    assert_eq!(held.join_all().await, [401, 401]);
    assert_eq!(ids(&db, "a.held").await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_held_say_whether_the_credential_or_the_time_was_over() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    let leaving = server.api.with_token(&with_jti("acme", "leaving"));
    let staying = server.api.with_token(&token("acme"));
    leaving.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    is_open(&server).await;
    let lines = upload(&staying, "wait=1", &["late-1", "late-2"]).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["line"], number);
        assert_eq!(line["error"]["status"], 503, "{line}");
        assert_eq!(line["error"]["type"], "/problems/unavailable", "{line}");
        assert!(line["error"]["retry_after"].is_u64(), "{line}");
    }
    let mut held = JoinSet::new();
    for (api, ids) in [
        (leaving, ["ended-1", "ended-2"]),
        (staying, ["kept-1", "kept-2"]),
    ] {
        held.spawn(async move { (ids[0], upload(&api, "wait=60", &ids).await) });
    }
    eventually(PATIENCE, || async {
        let (waiting, _) = server.app.appender.waiting();
        (waiting >= 2).then_some(()).ok_or(waiting)
    })
    .await;
    are_credentials_late(&server).await;
    db.connect().await.batch_execute(REVOKE).await.unwrap();
    proxy.restore();
    for (first, lines) in held.join_all().await {
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in &lines {
            if first == "ended-1" {
                assert_eq!(line["error"]["status"], 401, "{line}");
                assert_eq!(line["error"]["type"], "/problems/unauthenticated", "{line}");
            } else {
                assert_eq!(line["duplicate"], false, "{line}");
            }
        }
    }
    assert_eq!(ids(&db, "a.line").await, ["kept-1", "kept-2"]);
    server.stop().await;
}
