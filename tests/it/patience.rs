//! Clients that say nothing or take nothing: their connections end, and only theirs.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::json;
use tidewire::http::serve::Patience;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::{Server, TestDb, raw};

const SHORT: Patience = Patience {
    head: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    body: Duration::from_secs(3),
    message: Duration::from_secs(3),
};

/// Reads until the server ends the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    // A cut counts as an end.
    let _ = read.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_connection_without_a_request_ends() {
    let db = TestDb::new().await;
    let server = Server::start_patient(&db.url, &[], SHORT).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    let whole = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for beginning in [
        "",
        "PRI * HT",
        "GET /livez HT",
        "GET /livez HTTP/1.1\r\nHost: x\r\n",
    ] {
        let mut stream = raw::connect(&server.api).await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains(" 200 "), "{beginning:?}: {answer}");
    }
    // Between two requests, too.
    let mut stream = raw::connect(&server.api).await;
    stream.write_all(whole.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.contains(" 200 "));
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_ends() {
    let db = TestDb::new().await;
    let server = Server::start_patient(&db.url, &[], SHORT).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    let head = |kind: &str| {
        format!(
            "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
        )
    };
    let mut stream = raw::connect(&server.api).await;
    let sent = head("application/x-ndjson") + "{\"id\":\"one\",\"topic\":\"a\"}\n{";
    stream.write_all(sent.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains(r#""id":"one""#), "{answer}");
    assert!(answer.contains("/problems/request-timeout"), "{answer}");
    let mut stream = raw::connect(&server.api).await;
    let sent = head("application/json") + "{";
    stream.write_all(sent.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(db.log().await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_body_or_a_line_that_comes_a_byte_at_a_time_ends() {
    let db = TestDb::new().await;
    let server = Server::start_patient(&db.url, &[], SHORT).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    for (kind, expected) in [
        ("application/json", "HTTP/1.1 408"),
        ("application/x-ndjson", "/problems/request-timeout"),
    ] {
        let mut stream = raw::connect(&server.api).await;
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut sent = 0;
        let pace = Duration::from_millis(200);
        while !String::from_utf8_lossy(&answer).contains(expected) {
            assert!(sent < 100, "{}", String::from_utf8_lossy(&answer));
            let reading = stream.read_buf(&mut answer);
            if let Ok(read) = tokio::time::timeout(pace, reading).await {
                assert_ne!(read.unwrap(), 0, "{kind}");
            } else {
                stream.write_all(b" ").await.unwrap();
                sent += 1;
            }
        }
        assert!(sent > 5, "more than one byte's patience");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_never_ended_ends_the_socket_whatever_comes_in_between() {
    let db = TestDb::new().await;
    let server = Server::start_patient(&db.url, &[], SHORT).await;
    let (mut never, mut other) = (server.api.ws().await, server.api.ws().await);
    let part = Frame::message("{", OpCode::Data(Data::Text), false);
    never.socket.send(Message::Frame(part)).await.unwrap();
    let mut sent = 0;
    let pace = Duration::from_millis(200);
    let code = loop {
        assert!(sent < 100, "nothing ends it");
        never
            .socket
            .send(Message::Pong("alive".into()))
            .await
            .unwrap();
        other.send(json!({"type": "ping"})).await;
        other.until("pong").await;
        sent += 1;
        if let Ok(code) = tokio::time::timeout(pace, never.close_code()).await {
            break code;
        }
    };
    assert_eq!(code, 4408);
    assert!(sent > 5, "not for its pongs");
    other.send(json!({"type": "ping"})).await;
    other.until("pong").await;
    server.stop().await;
}

#[tokio::test]
async fn results_and_pages_that_nobody_reads_end_the_connection() {
    let db = TestDb::new().await;
    let server = Server::start_patient(&db.url, &[], SHORT).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    let big: Vec<_> = (0..4)
        .map(|_| json!({"topic": "big", "data": "x".repeat(200 * 1024)}))
        .collect();
    server.api.append(&json!(big)).await;
    let upload = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000000\r\n\r\n"
    );
    let page = format!("GET /v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (head, more) in [(upload, "{\n".repeat(64 * 1024)), (page.clone(), page)] {
        let mut stream = raw::connect(&server.api).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // Written until the server takes no more, and then until it has cut the line.
        let writing = async { while stream.write_all(more.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(30), writing)
            .await
            .expect("the connection ends");
    }
    // Streams that are silent for longer than that go on.
    let mut sse = server.api.sse("after=latest", None).await.unwrap();
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["late"], "latest").await;
    ws.until("live").await;
    let waited = server
        .api
        .request(reqwest::Method::GET, "/v1/events?after=latest&wait=3");
    assert!(waited.send().await.unwrap().status().is_success());
    server.api.append(&json!({"topic": "late"})).await;
    assert!(sse.events().await.unwrap().is_some());
    ws.until("events").await;
    server.stop().await;
}
