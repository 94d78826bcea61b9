//! HTTP/2: what one connection may ask for at once, and that it gets it whole.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire::http::serve::Patience;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, TestDb, raw};

/// The largest window there is.
const WINDOW: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

/// A frame as it is sent.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

/// Type, flags and payload of the next frame.
async fn next(stream: &mut TcpStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0_u8; 9];
    let reading = stream.read_exact(&mut head);
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    read.expect("a frame").unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], head[4], payload)
}

/// A connection whose streams have this window, and the settings of the server.
async fn connect(server: &Server, window: [u8; 4]) -> (TcpStream, Vec<u8>) {
    let mut stream = raw::connect(&server.api).await;
    let mut begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begin.extend(frame(4, 0, 0, &[&[0, 4], &window[..]].concat()));
    let more = u32::from_be_bytes(WINDOW) - 65_535;
    begin.extend(frame(8, 0, 0, &more.to_be_bytes()));
    stream.write_all(&begin).await.unwrap();
    let (kind, _, settings) = next(&mut stream).await;
    assert_eq!(kind, 4, "SETTINGS come first");
    stream.write_all(&frame(4, 1, 0, &[])).await.unwrap();
    (stream, settings)
}

/// A GET of this path: `:method GET`, `:scheme http`, and two literals.
fn get(stream: u8, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(":path", path), (":authority", "localhost")] {
        literal(&mut block, name, value);
    }
    frame(1, 5, stream, &block)
}

/// A header that no table holds.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    }
}

#[tokio::test]
async fn a_connection_may_ask_for_few_things_at_once() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (stream, settings) = connect(&server, [0; 4]).await;
    let streams = settings
        .chunks(6)
        .find(|setting| setting[..2] == [0, 3])
        .map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
    assert_eq!(streams, Some(32));
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_page_comes_whole_and_not_at_all_once_it_was_not_taken_in_time() {
    let db = TestDb::new().await;
    let patience = Patience {
        idle: Duration::from_secs(1),
        ..Patience::default()
    };
    let server = Server::start_patient(&db.url, &[], patience).await;
    let big: Vec<_> = (0..4)
        .map(|_| json!({"topic": "big", "data": "x".repeat(200 * 1024)}))
        .collect();
    let stored = server.api.append(&json!(big)).await;
    let last = stored[3]["cursor"].as_str().unwrap();
    let path = format!("/v1/events?at_least={last}");
    let expected = server.api.get(&path).await;
    let (mut stream, _) = connect(&server, WINDOW).await;
    stream.write_all(&get(1, &path)).await.unwrap();
    let mut page = Vec::new();
    loop {
        let (kind, flags, payload) = next(&mut stream).await;
        if kind == 0 {
            page.extend(payload);
            if flags & 1 == 1 {
                break;
            }
        }
        assert_ne!(kind, 3, "no reset");
    }
    let page: Value = serde_json::from_slice(&page).unwrap();
    assert_eq!(page, expected);
    drop(stream);
    // Without a window the answer's head comes and nothing of the page.
    let (mut stream, _) = connect(&server, [0; 4]).await;
    stream.write_all(&get(1, &path)).await.unwrap();
    while next(&mut stream).await.0 != 1 {}
    // A long-poll of three seconds passes the time.
    let poll = server.api.page("latest", "&wait=3").await;
    assert!(poll["events"].as_array().unwrap().is_empty());
    let open = frame(8, 0, 1, &(1_u32 << 30).to_be_bytes());
    stream.write_all(&open).await.unwrap();
    let mut taken = 0;
    loop {
        let (kind, flags, payload) = next(&mut stream).await;
        assert!(kind != 0 || flags & 1 == 0, "it does not look whole");
        match kind {
            0 => taken += payload.len(),
            3 => break,
            _ => {}
        }
    }
    assert!(taken < 100_000, "{taken} bytes were kept");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn the_bodies_of_all_streams_count_together() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (mut stream, _) = connect(&server, WINDOW).await;
    let zipped = raw::gzip(vec![b' '; (8 << 20) - 100]);
    for id in (0..32).map(|number| 2 * number + 1) {
        // `:method POST`, `:scheme http`.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (":path", "/v1/events"),
            (":authority", "localhost"),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ] {
            literal(&mut block, name, value);
        }
        let body = frame(0, 0, id, &zipped[..zipped.len() - 8]);
        stream
            .write_all(&[frame(1, 4, id, &block), body].concat())
            .await
            .unwrap();
    }
    // Only those are answered for which there is no room.
    for _ in 0..16 {
        while next(&mut stream).await.0 != 1 {}
    }
    let held = server.api.get("/v1/status").await["bodies"]["bytes"].as_u64();
    assert!(held.unwrap() <= 128 << 20, "{held:?}");
    drop(stream);
    server.stop().await;
}

/// Reads frames and answers pings until the connection ends. Which kinds there were.
async fn kinds_to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    let reading = async {
        let mut head = [0_u8; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            kinds.push(head[3]);
            if head[3] == 6 && head[4] == 0 {
                let _ = stream.write_all(&frame(6, 1, 0, &payload)).await;
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    ended.expect("the connection ends");
    kinds
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends_and_one_with_a_stream_does_not() {
    const GOAWAY: u8 = 7;
    let db = TestDb::new().await;
    let patience = Patience {
        head: Duration::from_secs(1),
        ..Patience::default()
    };
    let server = Server::start_patient(&db.url, &[], patience).await;
    let (mut silent, _) = connect(&server, WINDOW).await;
    assert!(kinds_to_the_end(&mut silent).await.contains(&GOAWAY));
    // After an answer, too; but not while one is awaited, however long that takes.
    let (mut polling, _) = connect(&server, WINDOW).await;
    let began = std::time::Instant::now();
    let poll = get(1, "/v1/events?after=latest&wait=3");
    polling.write_all(&poll).await.unwrap();
    let kinds = kinds_to_the_end(&mut polling).await;
    assert!(kinds.contains(&0), "the answer came: {kinds:?}");
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert!(began.elapsed() >= Duration::from_secs(4));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_whose_answers_nobody_takes_ends_and_one_that_waits_for_events_does_not() {
    let db = TestDb::new().await;
    let patience = Patience {
        idle: Duration::from_secs(1),
        ..Patience::default()
    };
    let server = Server::start_patient(&db.url, &[], patience).await;
    let (mut stuck, _) = connect(&server, [0; 4]).await;
    for (stream, path) in [(1, "/livez"), (3, "/problems")] {
        stuck.write_all(&get(stream, path)).await.unwrap();
    }
    let began = std::time::Instant::now();
    let kinds = kinds_to_the_end(&mut stuck).await;
    assert!(kinds.contains(&1) && !kinds.contains(&0), "{kinds:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    // Nothing is owed while there is nothing to say: the poll's answer comes in its own time.
    let (mut polling, _) = connect(&server, WINDOW).await;
    let poll = get(1, "/v1/events?after=latest&wait=3");
    polling.write_all(&poll).await.unwrap();
    loop {
        let (kind, _, payload) = next(&mut polling).await;
        if kind == 0 && !payload.is_empty() {
            break;
        }
    }
    server.stop().await;
}
