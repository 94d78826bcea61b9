//! NDJSON: a stream of any length, in bounded memory, line by line.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::support::{Api, Process, Server, TestDb, eventually, raw};

const KIND: &str = "application/x-ndjson";

fn results(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_bad_line_does_not_hold_up_the_others() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let too_long = format!(
        r#"{{"id":"long","topic":"a","data":"{}"}}"#,
        "x".repeat(600 * 1024)
    );
    let too_large = format!(
        r#"{{"id":"large","topic":"a","data":"{}"}}"#,
        "x".repeat(300 * 1024)
    );
    let lines = [
        r#"{"id":"1","topic":"a"}"#,
        "",
        "{",
        r#"{"id":"2","topic":"a"}"#,
        r#"{"topic":"A"}"#,
        &too_long,
        r#"{"id":"3","topic":"a"}"#,
        &too_large,
        r#"{"topic":"a","data":"\u0000"}"#,
        "[]",
        r#"{"id":"1","topic":"b"}"#,
        "\u{1f600}",
        r#"{"id":"1","topic":"a"}"#,
        r#"{"id":"4","topic":"a"}"#,
    ];
    let request = server
        .api
        .request(Method::POST, "/v1/events")
        .header("content-type", KIND);
    let response = request.body(lines.join("\r\n")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let results = results(&response.text().await.unwrap());
    let told: Vec<(u64, String)> = results
        .iter()
        .map(|result| {
            let word = match (&result["error"]["type"], &result["duplicate"]) {
                (Value::String(problem), _) => problem.trim_start_matches("/problems/").to_owned(),
                (_, Value::Bool(true)) => "duplicate".to_owned(),
                _ => result["id"].as_str().unwrap().to_owned(),
            };
            (result["line"].as_u64().unwrap(), word)
        })
        .collect();
    let expected = [
        (1, "1"),
        (3, "invalid-event"),
        (4, "2"),
        (5, "invalid-event"),
        (6, "too-large"),
        (7, "3"),
        (8, "too-large"),
        (9, "unstorable-data"),
        (10, "invalid-event"),
        (11, "idempotency-conflict"),
        (12, "invalid-event"),
        (13, "duplicate"),
        (14, "4"),
    ];
    assert_eq!(told, expected.map(|(line, word)| (line, word.to_owned())));
    let ids: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_lines_take_bounded_memory() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn", "--window-bytes", "2097152"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let before = raw::resident_bytes(server.pid());
    let chunks = (0..100).map(|chunk| {
        let mut text = String::new();
        for line in 0..1_000 {
            text.push_str(
                &json!({"topic": "a", "data": {"n": chunk * 1_000 + line, "pad": "x".repeat(400)}})
                    .to_string(),
            );
            text.push('\n');
        }
        Ok::<_, std::io::Error>(text)
    });
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = server
        .api
        .request(Method::POST, "/v1/events")
        .header("content-type", KIND);
    let response = request
        .header("prefer", "return=minimal")
        .body(body)
        .send()
        .await
        .unwrap();
    let results = results(&response.text().await.unwrap());
    assert_eq!(results[0]["summary"]["stored"], 100_000);
    let grown = raw::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    let row = db
        .connect()
        .await
        .query_one(
            "SELECT count(*) FROM (SELECT (data->>'n')::int AS n, row_number() OVER (ORDER BY seq) - 1 AS place
                FROM tidewire.events WHERE topic = 'a') AS e WHERE n <> place",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "the order of the lines is kept");
}

#[tokio::test]
async fn a_client_may_send_a_line_and_wait_for_its_result() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut stream = raw::connect(&server.api).await;
    let host = server.api.url.trim_start_matches("http://");
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: {KIND}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    for number in 1..=5 {
        let line = format!("{{\"id\":\"n{number}\",\"topic\":\"a\"}}\n");
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
        let wanted = format!("\"id\":\"n{number}\"");
        let mut buffer = [0_u8; 4096];
        while !answer.contains(&wanted) {
            let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
            let count = read.await.expect("a result for each line").unwrap();
            assert!(count > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
    // Cut in mid-line: what was whole is stored, the part is not.
    stream
        .write_all(b"40\r\n{\"id\":\"part\",\"to")
        .await
        .unwrap();
    drop(stream);
    server
        .api
        .append(&json!({"id": "after", "topic": "a"}))
        .await;
    let ids: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["n1", "n2", "n3", "n4", "n5", "after"]);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_no_results_is_held_up_and_costs_no_memory() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let before = raw::resident_bytes(server.pid());
    let mut stream = raw::connect(&server.api).await;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {}\r\nContent-Type: {KIND}\r\nContent-Length: 1000000000\r\n\r\n",
        server.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Refused lines cost no database, and their results are long.
    let lines = "{\n".repeat(64 * 1024);
    let mut sent = 0_usize;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(2), stream.write(lines.as_bytes())).await
    {
        sent += written.unwrap();
        assert!(sent < 200 << 20, "nothing holds the client up");
    }
    let grown = raw::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    // The others are served, and the server does not wait for it when it stops.
    server.api.append(&json!({"topic": "a"})).await;
    drop(stream);
    eventually(Duration::from_secs(5), async || {
        let (status, body) = server.api.try_get("/v1/status").await;
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;
}

/// An upload at hand: its answers as they come, and what sends more of it until it is dropped.
async fn begin(api: &Api, first: &'static str) -> (reqwest::Response, mpsc::Sender<&'static str>) {
    let (more, body) = mpsc::channel(8);
    more.send(first).await.unwrap();
    let body = ReceiverStream::new(body).map(Ok::<_, std::io::Error>);
    let request = api
        .request(Method::POST, "/v1/events")
        .header("content-type", KIND);
    let request = request.body(reqwest::Body::wrap_stream(body));
    (request.send().await.unwrap(), more)
}

/// While what the tenant has decided cannot be read: each line that was sent is stored, or answered once, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn where_settings_cannot_be_read_each_line_is_stored_or_answered_and_no_other() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let line = "{\"topic\":\"a\"}\n";
    for (rest, is_cut) in [
        ("", false),
        ("\r\n \n", false),
        ("{\n\n{\"topic\":\"b\"}\n{\"topic\":\"c\"}", true),
    ] {
        let (mut answer, more) = begin(&server.api, line).await;
        let first = answer.chunk().await.unwrap().unwrap();
        assert!(results(std::str::from_utf8(&first).unwrap())[0]["cursor"].is_string());
        holder
            .batch_execute("BEGIN; LOCK TABLE tidewire.declared_topics")
            .await
            .unwrap();
        let change =
            "INSERT INTO tidewire.tenant_settings (tenant, topic_mode) VALUES ('dev', 'open')
            ON CONFLICT (tenant) DO UPDATE SET topic_mode = excluded.topic_mode";
        client.batch_execute(change).await.unwrap();
        eventually(Duration::from_secs(10), || async {
            let (status, _) = server.api.try_append(&json!({"topic": "z"})).await;
            (status == 503).then_some(()).ok_or(status)
        })
        .await;
        if !rest.is_empty() {
            more.send(rest).await.unwrap();
        }
        drop(more);
        let mut said = String::new();
        while let Some(more) = answer.chunk().await.unwrap() {
            said.push_str(std::str::from_utf8(&more).unwrap());
        }
        let told: Vec<_> = results(&said)
            .iter()
            .map(|one| (one["line"].as_u64(), one["error"]["status"].as_u64()))
            .collect();
        if is_cut {
            assert_eq!(told, [(Some(2), Some(422)), (Some(4), Some(503))], "{said}");
        } else {
            assert!(told.is_empty(), "{said}");
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
        eventually(Duration::from_secs(10), || async {
            let (status, _) = server.api.try_append(&json!({"topic": "z"})).await;
            (status == 201).then_some(()).ok_or(status)
        })
        .await;
    }
    let stored = "SELECT string_agg(topic, '') FROM tidewire.events WHERE topic IN ('a', 'b', 'c')";
    let stored: String = client.query_one(stored, &[]).await.unwrap().get(0);
    assert_eq!(stored, "aaa");
    server.stop().await;
}
