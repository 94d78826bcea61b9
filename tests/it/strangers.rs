//! Queries, origins and credentials that are wrong in every way.

use reqwest::Method;
use serde_json::json;

use crate::support::refused::{post, refused};
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Server, TestDb};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn queries_and_cursors_that_cannot_be_are_refused() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let answer = server.api.append(&json!({"topic": "a"})).await;
    let cursor = answer[0]["cursor"].as_str().unwrap();
    let altered = cursor.replace('0', "1");
    let identity = server.app.hub.identity();
    let ahead = identity.encode(tidewire::event::Position {
        seq: 1 << 40,
        at_ms: 0,
    });
    let foreign = tidewire::event::LogIdentity {
        log_id: [7; 16],
        ..identity.known().identity.clone()
    }
    .encode(tidewire::event::Position { seq: 1, at_ms: 0 });
    for (query, status, code) in [
        ("topic=a".to_owned(), 400, "invalid-parameter"),
        ("topics=a&topics=b".into(), 400, "invalid-parameter"),
        ("topics=A".into(), 400, "invalid-parameter"),
        ("topics=*.*.".into(), 400, "invalid-parameter"),
        ("topics=%00".into(), 400, "invalid-parameter"),
        (
            format!("topics={}", vec!["a"; 101].join(",")),
            400,
            "invalid-parameter",
        ),
        (
            format!("subjects={}", "x".repeat(256)),
            400,
            "invalid-parameter",
        ),
        ("limit=0".into(), 400, "invalid-parameter"),
        ("limit=1001".into(), 400, "invalid-parameter"),
        ("limit=-1".into(), 400, "invalid-parameter"),
        ("limit=1e2".into(), 400, "invalid-parameter"),
        ("wait=61".into(), 400, "invalid-parameter"),
        ("wait=-1".into(), 400, "invalid-parameter"),
        ("wait=NaN".into(), 400, "invalid-parameter"),
        ("wait=inf".into(), 400, "invalid-parameter"),
        ("since=yesterday".into(), 400, "invalid-parameter"),
        (
            "since=2026-01-01T00:00:00Z&after=earliest".into(),
            400,
            "invalid-parameter",
        ),
        ("token=x".into(), 400, "invalid-parameter"),
        ("after=".into(), 400, "malformed-cursor"),
        ("after=0".into(), 400, "malformed-cursor"),
        (
            format!("after={}", cursor.to_uppercase()),
            400,
            "malformed-cursor",
        ),
        (format!("after={altered}"), 409, "cursor-unknown"),
        (format!("after={foreign}"), 409, "cursor-unknown"),
        (format!("after={ahead}"), 409, "cursor-unknown"),
        (format!("at_least={altered}"), 409, "cursor-unknown"),
        ("at_least=earliest".into(), 400, "malformed-cursor"),
    ] {
        let request = server
            .api
            .request(Method::GET, &format!("/v1/events?{query}"));
        refused(request, status, code, &query).await;
    }
    let get = |path| server.api.request(Method::GET, path);
    refused(get("/v1/event"), 404, "not-found", "path").await;
    refused(
        get("/v1/events").header("accept", "text/html"),
        406,
        "not-acceptable",
        "accept",
    )
    .await;
    refused(
        server.api.request(Method::DELETE, "/v1/events"),
        405,
        "method-not-allowed",
        "method",
    )
    .await;
    assert_eq!(db.log().await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn foreign_pages_cannot_drive_a_developers_server() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for (name, value) in [
        ("host", "example.com"),
        ("host", "127.0.0.1.example.com"),
        ("origin", "https://example.com"),
        ("origin", "null"),
        ("origin", "file://"),
        ("origin", "http://localhost.example.com"),
    ] {
        for path in ["/v1/events", "/v1/status", "/livez", "/v1/ws"] {
            let request = server.api.request(Method::GET, path).header(name, value);
            refused(request, 403, "forbidden", &format!("{name}: {value}")).await;
        }
        let request = post(&server.api, "application/json", r#"{"topic":"a"}"#).header(name, value);
        refused(request, 403, "forbidden", value).await;
    }
    let own = post(&server.api, "application/json", r#"{"topic":"a"}"#)
        .header("origin", "http://localhost:3000");
    assert_eq!(own.send().await.unwrap().status().as_u16(), 201);
    assert_eq!(db.log().await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn tokens_that_are_none_let_nobody_in() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let good = token::token("acme");
    let payload = good.split('.').nth(1).unwrap();
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    let expired = token::issue(&tidewire::access::Claims {
        exp: token::in_seconds(-60),
        ..token::claims("acme")
    });
    let tenantless = token::issue(&token::claims("a/b"));
    let cut = &good[..good.len() - 2];
    for wrong in [
        "",
        "x",
        "a.b.c",
        &none,
        &expired,
        &tenantless,
        cut,
        &format!("{good}x"),
    ] {
        let api = server.api.with_token(wrong);
        refused(
            post(&api, "application/json", r#"{"topic":"a"}"#),
            401,
            "unauthenticated",
            wrong,
        )
        .await;
        refused(
            api.request(Method::GET, "/v1/events"),
            401,
            "unauthenticated",
            wrong,
        )
        .await;
        assert!(api.try_ws().await.is_err());
    }
    for header in ["Basic dXNlcjpwYXNz", "Bearer", good.as_str()] {
        let request = server
            .api
            .request(Method::GET, "/v1/events")
            .header("authorization", header);
        refused(request, 401, "unauthenticated", header).await;
    }
    refused(
        server.api.request(Method::GET, "/v1/events"),
        401,
        "unauthenticated",
        "no token",
    )
    .await;
    assert!(db.log().await.is_empty());
    server.stop().await;
}
