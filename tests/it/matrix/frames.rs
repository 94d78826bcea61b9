//! Every message of the WebSocket.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidewire::http::ws::CLIENT_FRAMES;
use tokio_tungstenite::tungstenite::Error;

use super::credentials::{ROLES, SENTINEL, Setting, create_key, narrow, revocable, until, valid};
use super::routes::everything;
use crate::support::client::Ws;
use crate::support::credentials::{revoke, revoke_key};
use crate::support::eventually;
use crate::support::token::in_seconds;

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    All,
    Readers,
    Writers,
    Administrators,
}

/// A message, whom it is for, and the type of its answer.
fn rows() -> Vec<(Value, For, &'static str)> {
    vec![
        (
            json!({"type": "subscribe", "id": "s", "topics": ["deal.*"]}),
            For::Readers,
            "subscribed",
        ),
        (
            json!({"type": "subscribe", "id": "a", "topics": ["tidewire.audit.*"]}),
            For::Administrators,
            "subscribed",
        ),
        (
            json!({"type": "subscribe", "id": "h", "topics": ["system.*"]}),
            For::Administrators,
            "subscribed",
        ),
        (
            json!({"type": "unsubscribe", "id": "s"}),
            For::All,
            "unsubscribed",
        ),
        (
            json!({"type": "append", "ref": "r", "events": [{"topic": "deal.won"}]}),
            For::Writers,
            "appended",
        ),
        (
            json!({"type": "command", "ref": "c", "subject": "a-1", "action": "stop"}),
            For::Writers,
            "appended",
        ),
        (json!({"type": "ping", "timestamp": 1}), For::All, "pong"),
        (json!({"type": "get_status"}), For::Administrators, "status"),
        // Its token comes below.
        (json!({"type": "auth"}), For::All, "notice"),
    ]
}

#[test]
fn every_message_has_a_row() {
    let rows = rows();
    let with_a_row: BTreeSet<&str> = rows
        .iter()
        .map(|(frame, _, _)| frame["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        with_a_row,
        CLIENT_FRAMES.iter().copied().collect(),
        "say in `rows` whom the message is for"
    );
}

/// A type that is an answer, not news of a subscription.
fn is_answer(frame: &Value) -> bool {
    !matches!(frame["type"].as_str(), Some("live" | "events" | "cursor"))
}

#[tokio::test]
async fn each_role_may_send_what_it_is_for_and_nothing_else() {
    let setting = Setting::new().await;
    for role in ROLES {
        for (kind, credential) in [
            ("granted", valid("acme", role)),
            ("not granted", narrow("acme", role)),
        ] {
            let mut ws = setting.api(&credential).ws().await;
            for (frame, is_for, answer) in rows() {
                let frame = sent(frame, &credential);
                ws.send(frame.clone()).await;
                let told = loop {
                    let told = ws.next().await.unwrap().expect("it stays open");
                    if is_answer(&told) {
                        break told;
                    }
                };
                let is_let_in = match is_for {
                    For::All => true,
                    For::Readers => kind == "granted",
                    For::Writers => role != "analyst" && kind == "granted",
                    For::Administrators => role == "admin",
                };
                let what = format!("{frame} as {role}, {kind}: {told}");
                if is_let_in {
                    assert_eq!(told["type"], answer, "{what}");
                } else {
                    assert_eq!(told["type"], "error", "{what}");
                    let code = told["code"].as_str().unwrap();
                    assert!(code.starts_with("forbidden"), "{what}");
                }
            }
        }
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn no_credential_that_is_not_valid_opens_or_keeps_a_socket() {
    let setting = Setting::new().await;
    for role in ROLES {
        for (kind, credential) in setting.bad(role).await {
            match setting.api(&credential).try_ws().await {
                Err(Error::Http(response)) => assert_eq!(response.status(), 401, "{kind}"),
                other => panic!("{role} {kind}: {:?}", other.err()),
            }
            let mut ws = setting.api(&valid("acme", role)).ws().await;
            ws.send(json!({"type": "auth", "token": credential})).await;
            assert_eq!(ws.close_code().await, 4401, "{role} {kind}");
        }
        // Valid, of another tenant: a connection keeps its own.
        let mut ws = setting.api(&valid("acme", role)).ws().await;
        ws.send(json!({"type": "auth", "token": valid("beta", role)}))
            .await;
        assert_eq!(ws.close_code().await, 1008);
    }
    setting.server.stop().await;
}

/// A message as it is sent in the name of `credential`.
fn sent(mut frame: Value, credential: &str) -> Value {
    if frame["type"] == "auth" {
        frame["token"] = json!(credential);
    }
    frame
}

#[tokio::test]
async fn no_message_is_answered_after_a_credential_that_is_not_valid() {
    let setting = Setting::new().await;
    for role in ROLES {
        for (kind, credential) in setting.bad(role).await {
            for (frame, _, _) in rows() {
                let good = valid("acme", role);
                let mut ws = setting.api(&good).ws().await;
                ws.send(json!({"type": "auth", "token": credential})).await;
                // It may be gone by now.
                ws.try_send(sent(frame.clone(), &good)).await;
                let answered = ws.frame_or_close().await;
                assert_eq!(answered, Err(4401), "{role} {kind} {frame}");
            }
        }
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn no_message_is_answered_whose_credential_was_revoked() {
    let setting = Setting::new().await;
    let admin = setting.api(&valid("acme", "admin"));
    for role in ROLES {
        for (frame, _, _) in rows() {
            let (key_id, key) = create_key(&admin, role).await;
            let mut of_key = setting.api(&key).ws().await;
            revoke_key(&admin, &key_id).await;
            let (token, jti) = revocable("acme", role);
            let mut of_token = setting.api(&token).ws().await;
            revoke(&admin, &json!({"jti": jti})).await;
            for (ws, credential) in [(&mut of_token, &token), (&mut of_key, &key)] {
                ws.try_send(sent(frame.clone(), credential)).await;
                let answered = ws.frame_or_close().await;
                assert_eq!(answered, Err(4401), "{role} {frame}");
            }
        }
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn no_message_is_answered_whose_credential_has_expired() {
    let setting = Setting::new().await;
    let expires_at = in_seconds(4);
    let mut open = Vec::new();
    for role in ROLES {
        let token = until("acme", role, expires_at);
        for (frame, _, _) in rows() {
            let ws = setting.api(&token).ws().await;
            open.push((role, ws, sent(frame, &token)));
        }
    }
    let expiry = UNIX_EPOCH + Duration::from_secs(expires_at);
    assert!(SystemTime::now() < expiry, "all were opened in time");
    eventually(Duration::from_secs(10), async || {
        let left = expiry.duration_since(SystemTime::now());
        left.map_or(Ok(()), Err)
    })
    .await;
    for (role, mut ws, frame) in open {
        ws.try_send(frame.clone()).await;
        assert_eq!(ws.frame_or_close().await, Err(4401), "{role} {frame}");
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn another_tenant_gets_and_changes_nothing() {
    let setting = Setting::new().await;
    let owner = setting.api(&valid("acme", "admin"));
    let mut owners = owner.ws().await;
    owners.subscribe("s", &["deal.*"], "latest").await;
    owners.until("live").await;
    for role in ROLES {
        let before = everything(&setting).await;
        let mut ws = setting.api(&valid("beta", role)).ws().await;
        let history =
            json!({"type": "subscribe", "id": "h", "topics": ["deal.*"], "after": "earliest"});
        let named = json!({"type": "subscribe", "id": "n", "topics": ["deal.*"], "subjects": [SENTINEL], "after": "earliest"});
        let retried = json!({"type": "append", "ref": "r", "events": [{"topic": "deal.won", "id": SENTINEL, "subject": SENTINEL, "data": role}]});
        let command = json!({"type": "command", "ref": "k", "subject": SENTINEL, "action": "stop"});
        for frame in [history, named, retried, command] {
            ws.send(frame).await;
        }
        for (frame, _, _) in rows() {
            // A connection keeps its own tenant: tried above.
            ws.send(sent(frame, &valid("beta", role))).await;
        }
        ws.send(json!({"type": "ping", "timestamp": "done"})).await;
        let is_done = |frame: &Value| frame["timestamp"] == "done";
        not_told(&mut ws, role, is_done).await;
        assert_eq!(everything(&setting).await, before, "{role}");
        // Written by acme while beta follows.
        owner
            .append(&json!({"topic": "deal.won", "data": SENTINEL}))
            .await;
        let seen = owners.until("events").await;
        assert_eq!(seen["events"].as_array().unwrap().len(), 1, "{seen}");
        assert_eq!(seen["events"][0]["data"], SENTINEL, "{seen}");
        ws.send(json!({"type": "ping", "timestamp": role})).await;
        not_told(&mut ws, role, |frame| frame["timestamp"] == role).await;
    }
    setting.server.stop().await;
}

/// Looks at all frames up to one: none holds what is acme's.
async fn not_told(ws: &mut Ws, role: &str, is_last: impl Fn(&Value) -> bool) {
    loop {
        let frame = ws.next().await.unwrap().expect("it stays open");
        // What beta itself has named may be named to it, and what it wrote be given to it.
        for event in frame["events"].as_array().into_iter().flatten() {
            assert_ne!(event["data"], SENTINEL, "{role}: {event}");
        }
        if is_last(&frame) {
            break;
        }
    }
}
