//! Credentials in the URL, for clients that cannot send headers: they count where the contract says, and are not logged.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidewire::access::Claims;
use tokio_tungstenite::tungstenite::Error;

use crate::support::client::Ws;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Process, Server, TestDb};

/// A socket opened with this token in the URL, or the status and problem of its refusal.
async fn open(api: &Api, token: &str) -> Result<Ws, (u16, Value)> {
    let url = format!("{}/v1/ws?token={token}", api.url.replacen("http", "ws", 1));
    match tokio_tungstenite::connect_async(url).await {
        Ok((socket, _)) => Ok(Ws { socket }),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let problem = serde_json::from_slice(body).unwrap_or_default();
            Err((response.status().as_u16(), problem))
        }
        Err(error) => panic!("{error}"),
    }
}

/// A token that ended so many seconds ago, or will.
fn ends_in(seconds: i64) -> String {
    token::issue(&Claims {
        exp: token::in_seconds(seconds),
        ..token::claims("acme")
    })
}

/// Tokens that let nobody in.
fn bad_tokens() -> Vec<String> {
    let good = token::token("acme");
    let (content, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = ends_in(60)
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
    let claims = good.split('.').nth(1).unwrap();
    vec![
        ends_in(-3_600),
        format!("{content}.{signature}"),
        format!("{header}.{claims}."),
        content.to_owned(),
        "secret-but-no-token".to_owned(),
        String::new(),
    ]
}

#[tokio::test]
async fn a_token_in_the_url_opens_a_socket_or_is_refused_and_never_logged() {
    let db = TestDb::new().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = [WITH_TOKENS, &["--log", "trace", "--jwt-leeway-s", "0"]].concat();
    let server = Process::start_logging(&db.url, &arguments, log.reopen().unwrap()).await;
    let mut used = vec![token::token("acme"), ends_in(2)];
    let mut good = open(&server.api, &used[0]).await.unwrap();
    assert_eq!(good.until("welcome").await["tenant"], "acme");
    good.subscribe("s", &["*"], "latest").await;
    let append = json!({"type": "append", "ref": "r", "events": {"topic": "a"}});
    good.send(append).await;
    good.until("events").await;
    let mut short = open(&server.api, &used[1]).await.unwrap();
    assert_eq!(short.close_code().await, 4401, "it ends with its token");
    for bad in bad_tokens() {
        let Err((status, problem)) = open(&server.api, &bad).await else {
            panic!("{bad}")
        };
        let kind = problem["type"].as_str();
        assert_eq!(
            (status, kind),
            (401, Some("/problems/unauthenticated")),
            "{bad}"
        );
        used.push(bad);
    }
    let refused = server.api.with_token("x.y.z").try_ws().await;
    assert!(refused.is_err(), "a header that is wrong");
    // The same for a stream; a page takes none.
    let query = format!("after=latest&token={}", used[0]);
    let mut stream = server.api.sse(&query, None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    let query = format!("after=latest&token={}", used[2]);
    let stream = server.api.sse(&query, None).await.unwrap();
    assert_eq!(stream.response.status(), StatusCode::UNAUTHORIZED);
    let (status, _) = server
        .api
        .try_get(&format!("/v1/events?token={}", used[0]))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    server.kill().await;
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("the log is ready"), "{text:.500}");
    for token in used.iter().filter(|token| !token.is_empty()) {
        // Nor any part of it that could be used.
        for part in token
            .split('.')
            .filter(|part| part.len() > 40)
            .chain([token.as_str()])
        {
            assert!(!text.contains(part), "{part} is in the log");
        }
    }
}

#[tokio::test]
async fn the_header_counts_before_the_url() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token::token("acme"));
    let query = format!("after=latest&token={}", ends_in(-3_600));
    let stream = api.sse(&query, None).await.unwrap();
    assert_eq!(stream.response.status(), StatusCode::OK);
    let api = server.api.with_token(&ends_in(-3_600));
    let query = format!("after=latest&token={}", token::token("acme"));
    let stream = api.sse(&query, None).await.unwrap();
    assert_eq!(stream.response.status(), StatusCode::UNAUTHORIZED);
    server.stop().await;
}
