//! Rates of events and bytes.

use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};
use tidewire::client::{Client, Line, Secret, Sending};

use super::{caller, header, server, structured, wait_as_told};
use crate::support::client::json_of;
use crate::support::{Api, TestDb, raw};

fn events(count: usize) -> Value {
    (0..count)
        .map(|n| json!({"topic": "a.b", "data": n}))
        .collect()
}

/// Appends this many events, as JSON.
async fn append(api: &Api, count: usize) -> reqwest::Response {
    let request = api.request(Method::POST, "/v1/events").json(&events(count));
    request.send().await.unwrap()
}

#[tokio::test]
async fn who_is_over_the_rate_of_events_is_told_when_to_come_back_and_then_let_through() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-events-rate", "5:5"]).await;
    let api = caller(&server, "acme", "one");
    let first = append(&api, 5).await;
    assert_eq!(first.status(), 201);
    let policy = structured(&header(&first, "ratelimit-policy"));
    let parameter = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        policy,
        [(
            "tenant-events".to_owned(),
            vec![parameter("q", "5"), parameter("w", "1")]
        )]
    );
    let left = structured(&header(&first, "ratelimit"));
    assert_eq!(
        left,
        [(
            "tenant-events".to_owned(),
            vec![parameter("r", "0"), parameter("t", "1")]
        )]
    );
    let refused = append(&api, 5).await;
    assert_eq!(refused.status(), 429);
    structured(&header(&refused, "ratelimit"));
    structured(&header(&refused, "ratelimit-policy"));
    wait_as_told(&refused).await;
    let (_, problem) = json_of(refused).await;
    assert_eq!(problem["type"], "/problems/rate-limited");
    assert!(problem["retry_after"].as_u64().unwrap() >= 1, "{problem}");
    assert_eq!(append(&api, 5).await.status(), 201);
    // Reading is not limited, and says nothing of limits.
    let page = api.request(Method::GET, "/v1/events").send().await.unwrap();
    assert!(page.status().is_success() && !page.headers().contains_key("ratelimit-policy"));
    server.stop().await;
}

#[tokio::test]
async fn every_way_of_appending_takes_from_the_same_bucket_and_another_tenant_has_its_own() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-events-rate", "1:100"]).await;
    let api = caller(&server, "acme", "one");
    assert_eq!(append(&api, 95).await.status(), 201);
    let six = events(6);
    let post = |kind: &str, body: Vec<u8>| {
        let request = api.request(Method::POST, "/v1/events");
        request.header("content-type", kind).body(body).send()
    };
    let cloud: Vec<Value> = (0..6)
        .map(
            |n| json!({"specversion": "1.0", "id": format!("c{n}"), "source": "/s", "type": "a.b"}),
        )
        .collect();
    for (kind, body) in [
        ("application/json", six.to_string().into_bytes()),
        (
            "application/msgpack",
            rmp_serde::to_vec_named(&six).unwrap(),
        ),
        (
            "application/cloudevents-batch+json",
            json!(cloud).to_string().into_bytes(),
        ),
    ] {
        let answer = post(kind, body).await.unwrap();
        assert_eq!(answer.status(), 429, "{kind}");
        assert!(header(&answer, "retry-after").parse::<u64>().unwrap() >= 1);
    }
    // By another credential of the tenant, over two sockets.
    for _ in 0..2 {
        let mut ws = caller(&server, "acme", "two").ws().await;
        ws.send(json!({"type": "append", "ref": "r", "events": six}))
            .await;
        let error = ws.until("error").await;
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&json!("rate-limited"), &json!("r"))
        );
        assert!(error["retry_after_ms"].as_u64().unwrap() > 0, "{error}");
    }
    // The last few, one at a time, by the agents' routes and by commands.
    let mut ws = api.ws().await;
    let mut refusals = (0, 0);
    for _ in 0..100 {
        let put = api
            .request(Method::PUT, "/v1/agents/a/state")
            .json(&json!({}));
        refusals.0 += i32::from(put.send().await.unwrap().status() == 429);
        ws.send(json!({"type": "command", "subject": "a", "action": "go"}))
            .await;
        let answer = ws.next().await.unwrap().unwrap();
        refusals.1 += i32::from(answer["code"] == "rate-limited");
        if refusals.0 > 0 && refusals.1 > 0 {
            break;
        }
    }
    assert!(refusals.0 > 0 && refusals.1 > 0, "{refusals:?}");
    assert_eq!(
        append(&caller(&server, "other", "one"), 100).await.status(),
        201
    );
    server.stop().await;
}

#[tokio::test]
async fn one_credential_over_its_rate_does_not_concern_its_tenants_others() {
    let db = TestDb::new().await;
    let limits = [
        "--credential-events-rate",
        "1:10",
        "--tenant-events-rate",
        "1:100",
    ];
    let server = server(&db, &limits).await;
    let (loud, quiet) = (
        caller(&server, "acme", "loud"),
        caller(&server, "acme", "quiet"),
    );
    assert_eq!(append(&loud, 10).await.status(), 201);
    for _ in 0..30 {
        assert_eq!(append(&loud, 10).await.status(), 429);
    }
    assert_eq!(append(&quiet, 10).await.status(), 201);
    server.stop().await;
}

#[tokio::test]
async fn more_at_once_than_ever_goes_through_is_refused_for_good() {
    let db = TestDb::new().await;
    let limits = [
        "--tenant-events-rate",
        "5:10",
        "--tenant-bytes-rate",
        "500:2000",
    ];
    let server = server(&db, &limits).await;
    let api = caller(&server, "acme", "one");
    let refused = append(&api, 11).await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers().get("retry-after")
        ),
        (413, None)
    );
    let large = api
        .try_append(&json!({"topic": "a.b", "data": "x".repeat(2_000)}))
        .await;
    assert_eq!(large.0, 413, "{}", large.1);
    let mut ws = api.ws().await;
    ws.send(json!({"type": "append", "events": events(11)}))
        .await;
    assert_eq!(ws.until("error").await["code"], "too-large");
    // Nothing was taken.
    assert_eq!(append(&api, 10).await.status(), 201);
    server.stop().await;
}

#[tokio::test]
async fn bytes_are_counted_before_they_are_read() {
    let db = TestDb::new().await;
    let server = server(&db, &["--credential-bytes-rate", "100:1000"]).await;
    let api = caller(&server, "acme", "one");
    let body = json!({"topic": "a.b", "data": "x".repeat(800)});
    assert_eq!(api.try_append(&body).await.0, 201);
    // The head alone, of a body that is never sent.
    let token = crate::support::token::issue(&tidewire::access::Claims {
        sub: "one".into(),
        ..crate::support::token::claims("acme")
    });
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 900\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let answer = raw::send(&api, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(
        answer.contains("ratelimit-policy: \"credential-bytes\";q=1000;qu=\"content-bytes\";w=10"),
        "{answer}"
    );
    let mut ws = api.ws().await;
    ws.send(json!({"type": "append", "events": body})).await;
    assert_eq!(ws.until("error").await["code"], "rate-limited");
    server.stop().await;
}

#[tokio::test]
async fn a_socket_that_floods_regardless_is_closed() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-events-rate", "1:1"]).await;
    let api = caller(&server, "acme", "one");
    let mut ws = api.ws().await;
    for _ in 0..150 {
        ws.send(json!({"type": "append", "events": {"topic": "a.b"}}))
            .await;
    }
    assert_eq!(ws.close_code().await, 4429);
    server.stop().await;
}

#[tokio::test]
async fn the_client_waits_as_it_is_told_and_stores_everything_once() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-events-rate", "400:1000"]).await;
    let token = crate::support::token::token("acme");
    let client = Client::new(&server.api.url, Some(&Secret::new(&token))).unwrap();
    let lines = (1..=2_000).map(|number| Line {
        number,
        end: 0,
        event: Ok(r#"{"topic":"a.b"}"#.to_owned()),
    });
    let mut appender = client.append(stream::iter(lines.collect::<Vec<_>>()));
    let mut answered = 0;
    while let Some(sending) = appender.next().await.unwrap() {
        if let Sending::Answered(answers) = sending {
            answered += answers
                .iter()
                .filter(|answer| answer.result.is_ok())
                .count();
        }
    }
    assert_eq!(answered, 2_000);
    assert_eq!(db.log().await.len(), 2_000);
    server.stop().await;
}
