//! Uploads that are refused while they are being sent: their senders get the answer.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, TestDb, raw};

/// More than the line takes by itself, and more than a body may hold.
const BODY_BYTES: usize = 24 << 20;

/// The head of an answer, and what came of its body.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read_buf(&mut answer).await.expect("no reset");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn whoever_sends_too_much_or_what_is_not_taken_gets_the_answer_and_goes_on() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    let body = vec![b' '; BODY_BYTES];
    let sized = format!("Content-Length: {BODY_BYTES}\r\n\r\n");
    for (status, target, headers) in [
        ("413", "/v1/events", "Content-Type: application/json\r\n"),
        ("415", "/v1/events", "Content-Type: text/html\r\n"),
        ("415", "/v1/events", "Content-Encoding: br\r\n"),
        ("401", "/v1/events", "Authorization: Bearer none\r\n"),
        ("403", "/v1/events", "Origin: http://elsewhere.example\r\n"),
        ("404", "/nowhere", ""),
    ] {
        let mut stream = raw::connect(&server.api).await;
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{headers}{sized}");
        stream.write_all(head.as_bytes()).await.unwrap();
        // All of it before a look at the answer, as simple clients do.
        let sent = stream.write_all(&body).await;
        assert!(sent.is_ok(), "{status}: {sent:?}");
        let refused = answer(&mut stream).await;
        let first = format!("HTTP/1.1 {status} ");
        assert!(refused.starts_with(&first), "{status}: {refused}");
        let again = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(again.as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("HTTP/1.1 200 "), "{status}: {rest}");
    }
    server.stop().await;
}

#[tokio::test]
async fn whoever_asks_first_and_is_refused_is_not_told_to_go_on() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let host = server.api.url.trim_start_matches("http://").to_owned();
    let mut stream = raw::connect(&server.api).await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 413 "), "{all}");
    assert!(!all.contains("100 Continue"), "{all}");
    server.stop().await;
}
