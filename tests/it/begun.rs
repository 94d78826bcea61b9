//! Requests that were begun with a credential which ends before they do: nothing is done and nothing shown for its holder.

mod reading;
mod stuck;
mod waiting;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tidewire::access::Claims;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::client::json_of;
use crate::support::credentials::{create_key_with, revoke_key};
use crate::support::token::{self, WITH_TOKENS, claims, in_seconds, issue};
use crate::support::{Api, Server, TestDb, raw};

const WITHOUT_LEEWAY: &[&str] = &["--jwt-secret", token::SECRET, "--jwt-leeway-s", "0"];

/// A request whose head the server has taken and whose body it waits for.
struct Begun {
    line: TcpStream,
    body: String,
}

impl Begun {
    async fn new(api: &Api, credential: &str, method: &str, path: &str, body: &Value) -> Self {
        let mut line = raw::connect(api).await;
        let body = body.to_string();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {credential}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        line.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0_u8; 25];
        line.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "{method} {path}");
        Self { line, body }
    }

    /// What is answered, without the body or with it.
    async fn answer(mut self, with_body: bool) -> String {
        if with_body {
            // It may be answered already.
            let _ = self.line.write_all(self.body.as_bytes()).await;
        }
        // The line may stay open for the body that is owed; the answer does not wait for it.
        let mut answer = Vec::new();
        let reading = async {
            while !answer.ends_with(b"}") {
                assert_ne!(
                    self.line.read_buf(&mut answer).await.unwrap(),
                    0,
                    "no answer"
                );
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(5), reading).await;
        read.expect("an answer in time");
        String::from_utf8(answer).unwrap()
    }
}

/// A token that ends so soon.
fn lasting(seconds: i64) -> String {
    issue(&Claims {
        exp: in_seconds(seconds),
        ..claims("acme")
    })
}

#[tokio::test]
async fn a_body_that_comes_after_the_revocation_does_nothing() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let event = json!({"topic": "deal.won"});
    let key = json!({"name": "left-behind", "role": "admin", "read": ["*"], "write": ["*"]});
    let requests = [
        ("POST", "/v1/events", event.clone()),
        ("PUT", "/v1/agents/a/state", json!({"a": 1})),
        ("PATCH", "/v1/agents/a/state", json!({"a": 1})),
        ("POST", "/v1/agents/a/commands", json!({"action": "stop"})),
        ("POST", "/v1/api-keys", key.clone()),
        ("POST", "/v1/revocations", json!({"jti": "somebody's"})),
        ("PATCH", "/v1/settings", json!({"topic_mode": "declared"})),
        ("PUT", "/v1/topics/deal.won", json!({})),
        ("PUT", "/v1/retention/deal.won", json!({"days": 1})),
    ];
    for with_body in [true, false] {
        let wanted = json!({"name": "leaving", "role": "admin", "read": ["*"], "write": ["*"]});
        let (id, credential) = create_key_with(&admin, &wanted).await;
        let mut begun = Vec::new();
        for (method, path, body) in &requests {
            let one = Begun::new(&server.api, &credential, method, path, body).await;
            begun.push((format!("{method} {path}"), one));
        }
        revoke_key(&admin, &id).await;
        for (what, one) in begun {
            let answer = one.answer(with_body).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{what}: {answer}");
            assert!(answer.contains("revoked"), "{what}: {answer}");
        }
    }
    let page = admin.page("earliest", "&topics=deal.*,agent.*").await;
    assert_eq!(page["events"], json!([]));
    let keys = admin.get("/v1/api-keys").await.to_string();
    assert!(!keys.contains("left-behind"), "{keys}");
    assert_eq!(admin.get("/v1/revocations").await["revocations"], json!([]));
    assert_eq!(admin.get("/v1/settings").await["topic_mode"], "open");
    assert_eq!(admin.get("/v1/topics").await["topics"], json!([]));
    assert_eq!(admin.get("/v1/retention").await["rules"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_comes_after_the_expiry_does_nothing() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITHOUT_LEEWAY).await;
    let event = json!({"topic": "deal.won"});
    let begun = Begun::new(&server.api, &lasting(2), "POST", "/v1/events", &event).await;
    let answer = begun.answer(false).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("expired"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_the_log_longer_than_the_credential_lasts() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITHOUT_LEEWAY).await;
    let mut writer = db.connect().await;
    let open = writer.transaction().await.unwrap();
    let row = open
        .query_one(
            "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('acme', 'late', 'deal.won')
             RETURNING tidewire.cursor(seq, recorded_at)",
            &[],
        )
        .await
        .unwrap();
    let cursor: String = row.get(0);
    let path = format!("/v1/events?after=earliest&topics=deal.*&at_least={cursor}");
    for accept in ["application/json", "text/event-stream"] {
        let reader = server.api.with_token(&lasting(2));
        let request = reader.request(Method::GET, &path).header("accept", accept);
        let answer = tokio::time::timeout(Duration::from_secs(8), request.send()).await;
        let answer = answer.expect("it ends before the writer does").unwrap();
        let (status, answer) = json_of(answer).await;
        assert_eq!(status, 401, "{accept}: {answer}");
        assert!(answer.to_string().contains("expired"), "{answer}");
    }
    open.commit().await.unwrap();
    server.stop().await;
}
