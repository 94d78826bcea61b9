//! WebSocket: what a client may send, and how it ends.

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tidewire::access::{Claims, Role};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Server, TestDb};

fn code(frame: &Value) -> (&str, &str) {
    (
        frame["type"].as_str().unwrap_or_default(),
        frame["code"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn several_subscriptions_share_a_socket_and_each_keeps_its_own_place() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let stored = server
        .api
        .append(&json!([{"id": "a1", "topic": "a"}, {"id": "b1", "topic": "b"}]))
        .await;
    let last = stored[1]["cursor"].as_str().unwrap();
    server
        .api
        .page("latest", &format!("&at_least={last}"))
        .await;
    let mut ws = server.api.ws().await;
    let subscribed = ws.subscribe("a", &["a"], "latest").await;
    assert_eq!(
        (&subscribed["type"], &subscribed["id"]),
        (&json!("subscribed"), &json!("a"))
    );
    assert_eq!(ws.until("live").await["id"], "a");
    ws.subscribe("b", &["b"], "earliest").await;
    let events = ws.until("events").await;
    assert_eq!(
        (&events["id"], &events["events"][0]["id"]),
        (&json!("b"), &json!("b1"))
    );
    assert_eq!(ws.until("live").await["id"], "b");
    let twice = ws.subscribe("a", &["*"], "latest").await;
    assert_eq!(
        (code(&twice), &twice["id"]),
        (("error", "invalid-parameter"), &json!("a"))
    );
    server
        .api
        .append(&json!([{"id": "a2", "topic": "a"}, {"id": "b2", "topic": "b"}]))
        .await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let frame = ws.until("events").await;
        assert_eq!(frame["events"].as_array().unwrap().len(), 1);
        seen.push(format!("{}:{}", frame["id"], frame["events"][0]["id"]));
    }
    seen.sort();
    assert_eq!(seen, [r#""a":"a2""#, r#""b":"b2""#]);
    ws.send(json!({"type": "unsubscribe", "id": "a"})).await;
    assert_eq!(ws.until("unsubscribed").await["id"], "a");
    server
        .api
        .append(&json!([{"id": "a3", "topic": "a"}, {"id": "b3", "topic": "b"}]))
        .await;
    let frame = ws.until("events").await;
    assert_eq!(
        (&frame["id"], &frame["events"][0]["id"]),
        (&json!("b"), &json!("b3"))
    );
    server.stop().await;
}

#[tokio::test]
async fn appends_pings_and_status_are_answered_under_their_reference() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "append", "ref": "r1", "events": [{"id": "one", "topic": "a"}]}))
        .await;
    let stored = ws.until("appended").await;
    assert_eq!(
        (&stored["ref"], &stored["events"][0]["duplicate"]),
        (&json!("r1"), &json!(false))
    );
    ws.send(json!({"type": "append", "ref": "r2", "events": {"id": "one", "topic": "a"}}))
        .await;
    let again = ws.until("appended").await;
    assert_eq!(again["events"][0]["duplicate"], true);
    assert_eq!(again["events"][0]["cursor"], stored["events"][0]["cursor"]);
    ws.send(json!({"type": "append", "ref": "r3", "events": [{"id": "two", "topic": "a"}, {"topic": "Not A Topic"}]})).await;
    let refused = ws.until("error").await;
    assert_eq!(
        (code(&refused), &refused["ref"]),
        (("error", "invalid-event"), &json!("r3"))
    );
    assert_eq!(refused["problem"]["errors"][0]["index"], 1);
    ws.send(json!({"type": "command", "ref": "r4", "subject": "agent-1", "action": "pause", "params": {"for": 5}})).await;
    assert_eq!(ws.until("appended").await["ref"], "r4");
    ws.send(json!({"type": "ping", "timestamp": 12.5})).await;
    assert_eq!(ws.until("pong").await["timestamp"], 12.5);
    ws.send(json!({"type": "get_status"})).await;
    assert_eq!(ws.until("status").await["health"], 100);
    let log = db.log().await;
    assert_eq!(log.len(), 2, "{log:?}");
    server.stop().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn frames_that_are_none_are_answered_and_end_nothing() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    for text in [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        r#"{"type":"fly"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","id":7}"#,
        r#"{"type":"ping","extra":1}"#,
        r#"{"type":"append"}"#,
        &"[".repeat(200_000),
    ] {
        ws.socket
            .send(Message::Text(text.to_owned().into()))
            .await
            .unwrap();
        let refused = ws.next().await.unwrap().unwrap();
        assert_eq!(code(&refused), ("error", "malformed"), "{text:.60}");
    }
    ws.socket
        .send(Message::Binary(vec![0x80].into()))
        .await
        .unwrap();
    assert_eq!(
        code(&ws.next().await.unwrap().unwrap()),
        ("error", "malformed")
    );
    for (frame, expected) in [
        (json!({"type": "subscribe", "id": ""}), "invalid-parameter"),
        (
            json!({"type": "subscribe", "id": "x".repeat(256)}),
            "invalid-parameter",
        ),
        (
            json!({"type": "subscribe", "id": "s", "topics": ["A B"]}),
            "invalid-parameter",
        ),
        (
            json!({"type": "subscribe", "id": "s", "after": "x"}),
            "malformed-cursor",
        ),
        (
            json!({"type": "subscribe", "id": "s", "after": "v".repeat(32)}),
            "cursor-unknown",
        ),
    ] {
        ws.send(frame.clone()).await;
        assert_eq!(
            code(&ws.next().await.unwrap().unwrap()),
            ("error", expected),
            "{frame}"
        );
    }
    for number in 0..100 {
        let answer = ws
            .subscribe(&number.to_string(), &["quiet.*"], "latest")
            .await;
        let kind = answer["type"].as_str().unwrap();
        assert!(kind == "subscribed" || kind == "live", "{answer}");
    }
    ws.send(json!({"type": "subscribe", "id": "100"})).await;
    let refused = ws.until("error").await;
    assert_eq!(
        (code(&refused), &refused["id"]),
        (("error", "invalid-parameter"), &json!("100"))
    );
    ws.send(json!({"type": "ping", "timestamp": 1})).await;
    ws.until("pong").await;
    server.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_socket_with_1009() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for bytes in [1 << 20, 32 << 20] {
        let mut ws = server.api.ws().await;
        let large = json!({"type": "append", "events": {"topic": "a", "data": "x".repeat(bytes)}});
        // To its end, though nothing of it is kept.
        ws.send(large).await;
        assert_eq!(ws.close_code().await, 1009);
    }
    // The same in parts.
    let mut ws = server.api.ws().await;
    for part in [Data::Text, Data::Continue] {
        let frame = Frame::message(vec![b' '; 600 << 10], OpCode::Data(part), false);
        ws.socket.send(Message::Frame(frame)).await.unwrap();
    }
    assert_eq!(ws.close_code().await, 1009);
    assert!(db.log().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_subprotocol_is_refused() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let request = server.api.ws_request(Some("mqtt")).unwrap();
    match tokio_tungstenite::connect_async(request).await {
        Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 400),
        other => panic!("{other:?}"),
    }
    let (status, problem) = server.api.try_get("/v1/ws").await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (400, &json!("/problems/malformed"))
    );
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_says_when_to_come_back() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["*"], "latest").await;
    let (notice, ()) = tokio::join!(
        async {
            let notice = ws.until("notice").await;
            assert_eq!(ws.close_code().await, 1012);
            notice
        },
        server.stop()
    );
    assert!(
        notice["retry_after_ms"]
            .as_u64()
            .is_some_and(|ms| ms <= 5_000),
        "{notice}"
    );
}

#[tokio::test]
async fn a_socket_lives_as_long_as_its_credential_and_may_be_given_another() {
    let db = TestDb::new().await;
    let arguments = [WITH_TOKENS, &["--jwt-leeway-s", "0"]].concat();
    let server = Server::start_with(&db.url, &arguments).await;
    let short = |tenant: &str| Claims {
        exp: token::in_seconds(2),
        ..token::claims(tenant)
    };
    let api = server.api.with_token(&token::issue(&short("acme")));
    let (mut ends, mut goes_on) = (api.ws().await, api.ws().await);
    goes_on.subscribe("all", &["*"], "latest").await;
    goes_on.subscribe("deals", &["deal.*"], "latest").await;
    let narrow = token::issue(&Claims {
        read: vec!["deal.*".into()],
        write: Vec::new(),
        role: Role::Agent,
        ..token::claims("acme")
    });
    goes_on.send(json!({"type": "auth", "token": narrow})).await;
    let lost = goes_on.until("error").await;
    assert_eq!(
        (code(&lost), &lost["id"]),
        (("error", "forbidden-topic"), &json!("all"))
    );
    assert_eq!(goes_on.until("notice").await["code"], "authenticated");
    assert_eq!(ends.close_code().await, 4401);
    server
        .api
        .with_token(&token::token("acme"))
        .append(&json!({"topic": "deal.won"}))
        .await;
    assert_eq!(goes_on.until("events").await["id"], "deals");
    goes_on
        .send(json!({"type": "append", "ref": "r", "events": {"topic": "deal.won"}}))
        .await;
    assert_eq!(
        code(&goes_on.until("error").await),
        ("error", "forbidden-topic")
    );
    goes_on.send(json!({"type": "get_status"})).await;
    assert_eq!(code(&goes_on.until("error").await), ("error", "forbidden"));
    goes_on
        .send(json!({"type": "auth", "token": token::token("rival")}))
        .await;
    assert_eq!(goes_on.close_code().await, 1008);
    // Whose it is does not change either: the log says who subscribed.
    let anothers = token::issue(&Claims {
        sub: "somebody-else".into(),
        ..token::claims("acme")
    });
    let mut kept = server.api.with_token(&token::token("acme")).ws().await;
    kept.send(json!({"type": "auth", "token": anothers})).await;
    assert_eq!(kept.close_code().await, 1008);
    let mut wrong = server.api.with_token(&token::token("acme")).ws().await;
    wrong.send(json!({"type": "auth", "token": "x.y.z"})).await;
    assert_eq!(wrong.close_code().await, 4401);
    assert!(server.api.try_ws().await.is_err(), "no token, no socket");
    server.stop().await;
}

/// Whoever says "pause" and then "resume" without waiting means them in this order.
#[tokio::test]
async fn what_a_socket_appends_is_stored_in_the_order_of_its_frames() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    let mut wanted = Vec::new();
    for n in 0..10 {
        // What takes long, and then what is quick and finds the other connection idle.
        let events: Vec<_> = (0..900)
            .map(|m| json!({"id": format!("{n}-{m}"), "topic": "a"}))
            .collect();
        ws.send(json!({"type": "append", "ref": format!("a{n}"), "events": events}))
            .await;
        ws.send(json!({"type": "command", "ref": format!("c{n}"), "id": format!("{n}"), "subject": "s", "action": "x"}))
            .await;
        wanted.extend((0..900).map(|m| format!("{n}-{m}")));
        wanted.push(n.to_string());
    }
    for _ in 0..20 {
        ws.until("appended").await;
    }
    let stored: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    assert!(stored == wanted, "in another order");
    server.stop().await;
}
