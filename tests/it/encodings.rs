//! Compressed bodies: which are taken, and what a bomb costs the others.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::raw::gzip;
use crate::support::refused::{post, refused};
use crate::support::{Process, Server, TestDb};

const KIND: &str = "application/x-ndjson";

#[tokio::test]
async fn codings_that_are_not_taken_are_refused_before_the_body_is_read() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for coding in ["zstd", "br", "compress", "gzip, gzip", "", "*"] {
        let request = post(&server.api, KIND, "{\"topic\":\"a\"}\n");
        let request = request.header("content-encoding", coding);
        refused(request, 415, "unsupported-media-type", coding).await;
    }
    let request = post(&server.api, KIND, "").header("content-encoding", "zstd");
    let headers = request.send().await.unwrap().headers().clone();
    assert_eq!(headers["accept-encoding"], "gzip, deflate");
    assert!(db.log().await.is_empty());
    for coding in ["gzip", "GZIP"] {
        let body = gzip(b"{\"topic\":\"a\"}\n".to_vec());
        let request = post(&server.api, KIND, body).header("content-encoding", coding);
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        // Stored once the answer ends.
        response.text().await.unwrap();
    }
    assert_eq!(db.log().await.len(), 2);
    server.stop().await;
}

/// As many as there are threads, each a few bytes that inflate to a body of blank lines.
#[tokio::test]
async fn blank_lines_without_end_do_not_keep_others_from_being_served() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    let bomb = gzip(vec![b'\n'; 60 << 20]);
    let bombs = (0..16).map(|_| {
        let request = post(&server.api, KIND, bomb.clone()).header("content-encoding", "gzip");
        request.send()
    });
    // The answer begins before the body has been worked through, and the rest of it waits for that.
    let answers = futures_util::future::try_join_all(bombs).await.unwrap();
    for _ in 0..5 {
        let answer = server.api.get("/livez");
        let answer = tokio::time::timeout(Duration::from_secs(3), answer).await;
        answer.expect("others are served");
    }
    drop(answers);
    server.api.append(&json!({"topic": "a"})).await;
}

#[tokio::test]
async fn an_upload_that_inflates_beyond_reason_is_ended() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut body = b"{\"id\":\"one\",\"topic\":\"a\"}\n".to_vec();
    body.extend(vec![b'\n'; 100 << 20]);
    body.extend(b"{\"id\":\"two\",\"topic\":\"a\"}\n");
    let request = post(&server.api, KIND, gzip(body)).header("content-encoding", "gzip");
    let request = request.header("prefer", "return=minimal");
    let text = request.send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["error"]["type"], "/problems/too-large");
    assert_eq!(db.log().await.len(), 1);
    server.stop().await;
}
