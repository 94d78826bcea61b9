//! Web pages of other origins: which may read answers and open sockets.

use reqwest::{Method, Response};
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::support::token::{SECRET, token};
use crate::support::{Api, Server, TestDb};

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// What the server tells a page of this origin before and with a request.
async fn may_read(api: &Api, origin: &str) -> bool {
    let ask = api
        .request(Method::OPTIONS, "/v1/events")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,idempotency-key",
        );
    let asked = ask.send().await.unwrap();
    let told = header(&asked, "access-control-allow-origin").map(str::to_owned);
    if told.is_some() {
        assert!(asked.status().is_success());
        let methods = header(&asked, "access-control-allow-methods").unwrap();
        assert!(
            methods.contains("POST") && methods.contains("DELETE"),
            "{methods}"
        );
        let headers = header(&asked, "access-control-allow-headers").unwrap();
        assert!(headers.contains("authorization") && headers.contains("idempotency-key"));
        assert_eq!(header(&asked, "access-control-max-age"), Some("3600"));
    }
    for (path, accept) in [
        ("/v1/events", "application/json"),
        ("/v1/events", "text/event-stream"),
        ("/v1/events?topics=Wrong", "*/*"),
        ("/nowhere", "*/*"),
    ] {
        let request = api.request(Method::GET, path).header("origin", origin);
        let answer = request.header("accept", accept).send().await.unwrap();
        let allowed = header(&answer, "access-control-allow-origin");
        assert_eq!(allowed, told.as_deref(), "{path} {accept}");
        let vary = answer.headers().get_all("vary").iter();
        let vary: Vec<_> = vary
            .map(|value| value.to_str().unwrap().to_lowercase())
            .collect();
        let vary = vary.join(", ");
        assert!(
            vary.contains("origin"),
            "{path}: caches must tell them apart: {vary}"
        );
        assert!(header(&answer, "access-control-allow-credentials").is_none());
    }
    assert!(told.is_none() || told.as_deref() == Some(origin));
    told.is_some()
}

/// Whether a page of this origin may open a socket.
async fn may_open(api: &Api, origin: &str) -> bool {
    let mut request = api.ws_request(None).unwrap();
    let value = HeaderValue::from_str(origin).unwrap();
    request.headers_mut().insert("origin", value);
    match tokio_tungstenite::connect_async(request).await {
        Ok(_) => true,
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 403);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn pages_of_the_origins_that_are_named_and_of_its_own_and_no_others() {
    let db = TestDb::new().await;
    let named = "https://app.example,http://intern.example:3000";
    let words = ["--jwt-secret", SECRET, "--allowed-origins", named];
    let server = Server::start_with(&db.url, &words).await;
    let api = server.api.with_token(&token("acme"));
    for (origin, is_allowed) in [
        ("https://app.example", true),
        ("http://intern.example:3000", true),
        (server.api.url.as_str(), true),
        ("https://app.example.evil", false),
        ("https://evil-app.example", false),
        ("http://app.example", false),
        ("https://app.example:8443", false),
        ("http://intern.example", false),
        ("http://localhost:5173", false),
        ("null", false),
    ] {
        assert_eq!(may_read(&api, origin).await, is_allowed, "{origin}");
        assert_eq!(may_open(&api, origin).await, is_allowed, "{origin}");
    }
    // A program that is no browser names none; and what a page may not read it may not have done unseen either.
    assert!(api.try_ws().await.is_ok());
    let answer = api.try_append(&json!({"topic": "a"})).await;
    assert_eq!(answer.0, 201);
    server.stop().await;
}

#[tokio::test]
async fn all_origins_or_in_development_those_of_this_machine() {
    let db = TestDb::new().await;
    let words = ["--jwt-secret", SECRET, "--allowed-origins", "*"];
    let server = Server::start_with(&db.url, &words).await;
    let api = server.api.with_token(&token("acme"));
    assert!(may_read(&api, "https://anything.example").await);
    assert!(may_open(&api, "https://anything.example").await);
    server.stop().await;
    let server = Server::start(&db).await;
    assert!(may_read(&server.api, "http://localhost:5173").await);
    assert!(may_open(&server.api, "http://127.0.0.1:5173").await);
    assert!(!may_open(&server.api, "https://elsewhere.example").await);
    server.stop().await;
}
