//! Bytes that are meant to harm: MessagePack and compressed bodies that claim, nest or grow without end.

mod compressed;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::refused::{post, refused};
use crate::support::{Process, TestDb, raw};

/// What the memory may have grown by at any time: some bodies of 8 MiB, and what the allocator keeps.
const GROWTH_MAX: u64 = 64 << 20;

/// `{"topic": "a", "data": <value>}`
fn with_data(value: &[u8]) -> Vec<u8> {
    [b"\x82\xa5topic\xa1a\xa4data", value].concat()
}

async fn process(db: &TestDb) -> (Process, u64) {
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    // What the first request of a kind needs is there.
    let ready = post(&server.api, "application/msgpack", with_data(b"\xff\xff"));
    refused(ready, 400, "malformed", "two values").await;
    let before = raw::peak_bytes(server.pid());
    (server, before)
}

/// Nothing was stored, the memory never grew beyond its bound, and the server serves.
async fn unharmed(db: &TestDb, server: &Process, before: u64) {
    assert!(db.log().await.is_empty());
    let grown = raw::peak_bytes(server.pid()).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{} MiB", grown >> 20);
    server.api.append(&json!({"topic": "a"})).await;
}

/// A body beyond the bound is not read to its end: who goes on sending may find the line cut before the answer is there.
async fn too_large(server: &Process, kind: &str, more: &[&str], body: &[u8]) {
    let mut request = format!(
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for header in more {
        request = format!("{request}{header}\r\n");
    }
    let request = [format!("{request}\r\n").as_bytes(), body].concat();
    let answer = raw::send(&server.api, &request).await;
    let is_refused = answer.starts_with("HTTP/1.1 413") && answer.contains("/problems/too-large");
    assert!(is_refused || answer.is_empty(), "{answer}");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn messagepack_that_claims_nests_or_breaks_off_is_refused_with_the_reason() {
    let db = TestDb::new().await;
    let (server, before) = process(&db).await;
    let deep = |depth: usize| vec![0x91_u8; depth];
    let closed = |depth: usize| [deep(depth), vec![0xc0]].concat();
    let maps = b"\x81\xa0".repeat(3_000_000);
    let whole = rmp_serde::to_vec_named(&json!({"topic": "a.b", "data": {"k": ["é", 70_000]}}));
    let whole = whole.unwrap();
    let mut longer = whole.clone();
    longer.push(0);
    let table: Vec<(&str, Vec<u8>, u16, &str, &str)> = vec![
        ("nothing", Vec::new(), 400, "malformed", "empty"),
        ("no token", b"\xc1".to_vec(), 400, "malformed", "0xc1"),
        (
            "JSON",
            b"{\"topic\":\"a\"}".to_vec(),
            400,
            "malformed",
            "byte 1",
        ),
        ("two values", longer, 400, "malformed", "something follows"),
        (
            "8,000,000 deep",
            deep(8_000_000),
            400,
            "malformed",
            "byte 8000000",
        ),
        (
            "an event 8,000,000 deep",
            with_data(&closed(8_000_000)),
            422,
            "unstorable-data",
            "128",
        ),
        (
            "maps, deep",
            with_data(&[maps, vec![0xc0]].concat()),
            422,
            "unstorable-data",
            "128",
        ),
        (
            "members, deep",
            closed(8_000_000),
            422,
            "invalid-event",
            "must be a map",
        ),
        (
            "a number",
            b"\x07".to_vec(),
            422,
            "invalid-event",
            "must be a map",
        ),
        (
            "no events",
            b"\x90".to_vec(),
            422,
            "invalid-event",
            "no event",
        ),
        (
            "2^32-1 events",
            b"\xdd\xff\xff\xff\xff".to_vec(),
            413,
            "too-large",
            "1000 events",
        ),
        (
            "1,000 events",
            b"\xdc\x03\xe8".to_vec(),
            400,
            "malformed",
            "byte 3",
        ),
        (
            "2^32-1 fields",
            b"\xdf\xff\xff\xff\xff".to_vec(),
            400,
            "malformed",
            "byte 5",
        ),
        (
            "2^32-1 values",
            with_data(b"\xdd\xff\xff\xff\xff\xc0"),
            400,
            "malformed",
            "within a value",
        ),
        (
            "2^32-1 pairs",
            with_data(b"\xdf\xff\xff\xff\xff\xa0\xc0"),
            400,
            "malformed",
            "within a value",
        ),
        (
            "2^32-1 bytes",
            with_data(b"\xc6\xff\xff\xff\xffx"),
            400,
            "malformed",
            "within a value",
        ),
        (
            "a string of 2^32-1",
            with_data(b"\xdb\xff\xff\xff\xffx"),
            400,
            "malformed",
            "within a value",
        ),
        (
            "an extension of 2^32-1",
            with_data(b"\xc9\xff\xff\xff\xff\x01x"),
            400,
            "malformed",
            "within a value",
        ),
        (
            "an extension",
            with_data(b"\xd6\xff\0\0\0\0"),
            422,
            "invalid-event",
            "RFC 3339",
        ),
        (
            "NaN",
            with_data(b"\xcb\x7f\xf8\0\0\0\0\0\0"),
            422,
            "invalid-event",
            "NaN",
        ),
        (
            "a key that is a number",
            with_data(b"\x81\x01\x02"),
            422,
            "invalid-event",
            "must be strings",
        ),
        (
            "a field that is a number",
            b"\x81\x01\x02".to_vec(),
            422,
            "invalid-event",
            "must be strings",
        ),
        (
            "data that is not UTF-8",
            with_data(b"\xa2\xc3\x28"),
            422,
            "invalid-event",
            "UTF-8",
        ),
        (
            "a surrogate",
            with_data(b"\xa3\xed\xa0\x80"),
            422,
            "invalid-event",
            "UTF-8",
        ),
        (
            "a key that is not UTF-8",
            with_data(b"\x81\xa1\xff\xc0"),
            422,
            "invalid-event",
            "UTF-8",
        ),
        (
            "a field that is not UTF-8",
            b"\x81\xa1\xff\xc0".to_vec(),
            422,
            "invalid-event",
            "UTF-8",
        ),
        (
            "a topic that is not UTF-8",
            b"\x81\xa5topic\xa1\xff".to_vec(),
            422,
            "invalid-event",
            "UTF-8",
        ),
        (
            "NUL in data",
            with_data(b"\xa3a\0b"),
            422,
            "unstorable-data",
            "\\u0000",
        ),
        (
            "NUL in a key",
            with_data(b"\x81\xa1\0\xc0"),
            422,
            "unstorable-data",
            "\\u0000",
        ),
        (
            "NUL in a subject",
            b"\x82\xa5topic\xa1a\xa7subject\xa1\0".to_vec(),
            422,
            "invalid-event",
            "control",
        ),
        (
            "NUL in a topic",
            b"\x81\xa5topic\xa2a\0".to_vec(),
            422,
            "invalid-event",
            "topic",
        ),
    ];
    for (what, body, status, code, reason) in table {
        let problem = refused(
            post(&server.api, "application/msgpack", body),
            status,
            code,
            what,
        )
        .await;
        assert!(
            problem.to_string().contains(&reason.replace('\\', "\\\\")),
            "{what}: {reason}: {problem}"
        );
    }
    for end in 1..whole.len() {
        let cut = post(&server.api, "application/msgpack", whole[..end].to_vec());
        let problem = refused(cut, 400, "malformed", &format!("cut at {end}")).await;
        let at = format!("it ends at byte {end}");
        assert!(
            problem["detail"].as_str().unwrap().contains(&at),
            "{problem}"
        );
    }
    too_large(&server, "application/msgpack", &[], &deep(10_000_000)).await;
    unharmed(&db, &server, before).await;
}

#[tokio::test]
async fn frames_of_messagepack_that_claim_nest_or_break_off_are_answered_and_the_socket_goes_on() {
    let db = TestDb::new().await;
    let (server, before) = process(&db).await;
    let request = server.api.ws_request(Some("tidewire.v1.msgpack")).unwrap();
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let append = |data: &[u8]| {
        let head = b"\x82\xa4type\xa6append\xa6events";
        [head.as_slice(), &with_data(data)].concat()
    };
    let mut next = async |frame: Vec<u8>| -> Value {
        socket.send(Message::Binary(frame.into())).await.unwrap();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    let frame: Value = rmp_serde::from_slice(&bytes).unwrap();
                    if frame["type"] != "welcome" {
                        return frame;
                    }
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    for (what, frame) in [
        ("nothing", Vec::new()),
        ("no token", b"\xc1".to_vec()),
        ("deep", vec![0x91; 1_000_000]),
        (
            "an event, deep",
            append(&[vec![0x91; 1_000_000], vec![0xc0]].concat()),
        ),
        ("2^32-1 values", b"\xdd\xff\xff\xff\xff".to_vec()),
        ("2^32-1 pairs", b"\xdf\xff\xff\xff\xff".to_vec()),
        ("2^32-1 bytes", append(b"\xc6\xff\xff\xff\xffx")),
        ("a string of 2^32-1", append(b"\xdb\xff\xff\xff\xffx")),
        ("not UTF-8", append(b"\xa2\xc3\x28")),
        ("two values", [append(b"\x01"), b"\xc0".to_vec()].concat()),
    ] {
        let answer = next(frame).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("malformed")),
            "{what}: {answer}"
        );
    }
    let answer = next(append(b"\xa3a\0b")).await;
    assert_eq!(answer["code"], "unstorable-data", "{answer}");
    let ping = json!({"type": "ping", "timestamp": 7});
    let answer = next(rmp_serde::to_vec_named(&ping).unwrap()).await;
    assert_eq!(answer, json!({"type": "pong", "timestamp": 7}));
    unharmed(&db, &server, before).await;
}
