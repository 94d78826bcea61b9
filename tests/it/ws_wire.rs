//! WebSocket, byte by byte: what comes back exactly, what a peer that does not read costs, how a close is answered.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::Ws;
use crate::support::{Process, Server, TestDb, raw};

/// Sends a text frame as it stands.
async fn tell(ws: &mut Ws, text: String) {
    ws.socket.send(Message::Text(text.into())).await.unwrap();
}

/// Numbers beyond a double, and text that is JSON only by its grammar.
#[tokio::test]
async fn a_timestamp_comes_back_as_it_was_sent_or_is_refused() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for exact in [
        "12345678901234567890123".to_owned(),
        "1.10".to_owned(),
        "1e400".to_owned(),
        r#"{"a":"\ud83d\ude00"}"#.to_owned(),
        nested(128),
    ] {
        tell(&mut ws, format!(r#"{{"type":"ping","timestamp":{exact}}}"#)).await;
        let pong = ws.socket.next().await.unwrap().unwrap();
        let expected = format!(r#"{{"type":"pong","timestamp":{exact}}}"#);
        assert_eq!(pong.into_text().unwrap().as_str(), expected);
    }
    for refused in [nested(129), r#""\ud800""#.to_owned(), "1e99999".to_owned()] {
        tell(
            &mut ws,
            format!(r#"{{"type":"ping","timestamp":{refused}}}"#),
        )
        .await;
        let error = ws.next().await.unwrap().expect("the socket goes on");
        assert_eq!(error["code"], "unstorable-data", "{error}");
    }
    tell(&mut ws, r#"{"type":"ping"}"#.to_owned()).await;
    assert!(ws.until("pong").await["timestamp"].is_null());
    server.stop().await;
}

#[tokio::test]
async fn the_parameters_of_a_command_are_stored_exactly_or_refused() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    let command = |id: &str, params: &str| {
        format!(
            r#"{{"type":"command","ref":"{id}","id":"{id}","subject":"a\"b","action":"pa\"use","params":{params}}}"#
        )
    };
    let exact = r#"{"a":12345678901234567890123,"b":1.10}"#;
    tell(&mut ws, command("exact", exact)).await;
    assert_eq!(ws.until("appended").await["events"][0]["id"], "exact");
    for refused in [
        "1e99999",
        r#""\ud800""#,
        &format!("{}{}", "[".repeat(128), "]".repeat(128)),
    ] {
        tell(&mut ws, command("refused", refused)).await;
        let error = ws.next().await.unwrap().expect("the socket goes on");
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&json!("unstorable-data"), &json!("refused"))
        );
    }
    let row = db
        .connect()
        .await
        .query_one("SELECT data::text, subject FROM tidewire.events", &[])
        .await
        .unwrap();
    let (data, subject) = (row.get::<_, String>(0), row.get::<_, String>(1));
    for part in ["12345678901234567890123", "1.10", r#""pa\"use""#] {
        assert!(data.contains(part), "{data}");
    }
    assert_eq!(subject, "a\"b");
    server.stop().await;
}

#[tokio::test]
async fn a_timestamp_that_nests_deeply_in_messagepack_is_answered() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let request = server.api.ws_request(Some("tidewire.v1.msgpack")).unwrap();
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let welcome = socket.next().await.unwrap().unwrap();
    assert!(welcome.is_binary());
    for (depth, word) in [(1, "pong"), (128, "error"), (500, "error")] {
        let mut frame = b"\x82\xa4type\xa4ping\xa9timestamp".to_vec();
        frame.extend(vec![0x91; depth]);
        frame.push(0x01);
        socket.send(Message::Binary(frame.into())).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap().into_data();
        let answer: serde_json::Value = rmp_serde::from_slice(&answer).unwrap();
        assert_eq!(answer["type"], word, "{depth}: {answer}");
    }
    server.stop().await;
}

/// A masked ping with the largest payload.
const PING: [u8; 131] = {
    let mut frame = [b'x'; 131];
    frame[0] = 0x89;
    frame[1] = 0x80 | 0x7d;
    frame
};

/// The bytes of a request for a socket.
fn upgrade(server: &Process) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    )
}

#[tokio::test]
async fn who_pings_and_never_reads_is_held_up_and_costs_no_memory() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let before = raw::resident_bytes(server.pid());
    let mut stream = raw::connect(&server.api).await;
    stream.write_all(upgrade(&server).as_bytes()).await.unwrap();
    let pings = PING.repeat(2_000);
    let mut sent = 0_usize;
    while let Ok(written) = tokio::time::timeout(
        Duration::from_secs(2),
        stream.write(&pings[sent % PING.len()..]),
    )
    .await
    {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing holds the client up");
    }
    let grown = raw::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB", grown >> 20);
    // Who reads its pongs goes on.
    let mut ws = server.api.ws().await;
    for number in 0..100_u8 {
        let ping = Message::Ping(vec![number].into());
        ws.socket.send(ping).await.unwrap();
        let answer = ws.socket.next().await.unwrap().unwrap();
        assert_eq!(answer, Message::Pong(vec![number].into()));
    }
}

#[tokio::test]
async fn a_close_of_the_client_is_answered() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["*"], "latest").await;
    let frame = CloseFrame {
        code: CloseCode::Library(3_210),
        reason: "enough".into(),
    };
    ws.socket.close(Some(frame)).await.unwrap();
    assert_eq!(ws.close_code().await, 3_210);
    let end = ws.socket.next().await;
    assert!(end.is_none(), "a clean end: {end:?}");
    let mut ws = server.api.ws().await;
    ws.socket.close(None).await.unwrap();
    while let Some(frame) = ws.socket.next().await {
        frame.expect("a clean end");
    }
    server.stop().await;
}
