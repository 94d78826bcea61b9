//! Every message of the WebSocket.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidewire::http::ws::CLIENT_FRAMES;
use tokio_tungstenite::tungstenite::Error;

use super::credentials::{ROLES, SENTINEL, Setting, narrow, valid};

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
            for (mut frame, is_for, answer) in rows() {
                if frame["type"] == "auth" {
                    frame["token"] = json!(credential);
                }
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

#[tokio::test]
async fn another_tenant_gets_nothing() {
    let setting = Setting::new().await;
    for role in ROLES {
        let mut ws = setting.api(&valid("beta", role)).ws().await;
        let history =
            json!({"type": "subscribe", "id": "h", "topics": ["deal.*"], "after": "earliest"});
        let named = json!({"type": "subscribe", "id": "n", "topics": ["deal.*"], "subjects": [SENTINEL], "after": "earliest"});
        let retried = json!({"type": "append", "ref": "r", "events": [{"topic": "deal.won", "id": SENTINEL, "subject": SENTINEL, "data": role}]});
        for frame in [history, named, retried, json!({"type": "get_status"})] {
            ws.send(frame).await;
        }
        // Written by acme while beta follows.
        setting
            .api(&valid("acme", "admin"))
            .append(&json!({"topic": "deal.won", "data": SENTINEL}))
            .await;
        ws.send(json!({"type": "ping", "timestamp": role})).await;
        loop {
            let frame = ws.next().await.unwrap().expect("it stays open");
            // What beta itself has named may be named to it, and what it wrote be given to it.
            for event in frame["events"].as_array().into_iter().flatten() {
                assert_ne!(event["data"], SENTINEL, "{role}: {event}");
            }
            if frame["type"] == "pong" {
                break;
            }
        }
    }
    setting.server.stop().await;
}
