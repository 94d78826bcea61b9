//! What clients make the server hold before they have asked for anything: it is bounded in total, and given back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::event::{Filter, Tenant};
use tidewire::feed::{Follower, Start};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Process, Server, TestDb, eventually, raw};

/// What all bodies may take.
const BODIES_BYTES: u64 = 128 << 20;
/// What the allocator and the buffers of many connections take on top.
const SLACK_BYTES: u64 = 72 << 20;

/// A connection to whose server these bytes were sent, and what came back of it so far.
struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    async fn sending(server: &Process, bytes: &[u8]) -> Self {
        let mut stream = raw::connect(&server.api).await;
        stream.write_all(bytes).await.unwrap();
        let heard = Vec::new();
        Self { stream, heard }
    }

    /// Whether the answer holds this, as far as it has come.
    fn has_heard(&mut self, text: &[u8]) -> bool {
        let mut more = [0; 4096];
        while let Ok(read @ 1..) = self.stream.try_read(&mut more) {
            self.heard.extend_from_slice(&more[..read]);
        }
        self.heard.windows(text.len()).any(|part| part == text)
    }
}

/// Waits until this many of the clients have heard this.
async fn hear(clients: &mut [Client], count: usize, text: &[u8]) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let hearing = async {
        loop {
            ticks.tick().await;
            let heard = clients
                .iter_mut()
                .filter_map(|one| one.has_heard(text).then_some(()));
            if heard.count() >= count {
                return;
            }
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(30), hearing).await;
    assert!(
        heard.is_ok(),
        "fewer than {count} are told {:?}",
        str::from_utf8(text)
    );
}

/// The head of an upload, chunked.
fn head_of(server: &Process, more: &str) -> String {
    let host = server.address();
    format!("POST /v1/events HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n{more}\r\n")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// What is held of bodies or of messages, by the server's own account.
async fn held(server: &Process, what: &str) -> u64 {
    server.api.get("/v1/status").await[what]["bytes"]
        .as_u64()
        .unwrap()
}

async fn nothing_is_held(server: &Process, what: &str) {
    eventually(Duration::from_secs(10), async || {
        match held(server, what).await {
            0 => Ok(()),
            held => Err(held),
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_that_are_never_ended_cost_no_more_than_their_budget_and_those_beyond_are_told() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let before = raw::resident_bytes(server.pid());
    let zipped = raw::gzip(vec![b' '; (8 << 20) - 100]);
    // All but the checksum and the length.
    let most = chunk(&zipped[..zipped.len() - 8]);
    let head = head_of(
        &server,
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    );
    let upload = [head.as_bytes(), &most].concat();
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(Client::sending(&server, &upload).await);
    }
    hear(&mut clients, 44, b"HTTP/1.1 503 ").await;
    let grown = raw::peak_bytes(server.pid()).saturating_sub(before);
    assert!(grown < BODIES_BYTES + SLACK_BYTES, "{} MiB", grown >> 20);
    let taken = held(&server, "bodies").await;
    assert!(
        (BODIES_BYTES / 2..=BODIES_BYTES).contains(&taken),
        "{taken}"
    );
    let told = clients
        .iter()
        .find(|client| client.heard.starts_with(b"HTTP/1.1 503 "));
    let told = String::from_utf8(told.expect("somebody").heard.clone()).unwrap();
    assert!(
        told.contains("retry-after: ") && told.contains("/problems/overloaded"),
        "{told}"
    );
    // Who sends little is served all the same, and who sends much as soon as there is room.
    server.api.append(&json!({"topic": "small"})).await;
    drop(clients);
    nothing_is_held(&server, "bodies").await;
    let large: Vec<_> = (0..30)
        .map(|_| json!({"topic": "large", "data": "x".repeat(250_000)}))
        .collect();
    server.api.append(&json!(large)).await;
    nothing_is_held(&server, "bodies").await;
}

#[tokio::test]
async fn lines_that_are_never_ended_count_with_the_bodies() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let before = raw::resident_bytes(server.pid());
    let head = head_of(&server, "Content-Type: application/x-ndjson\r\n");
    let upload = [head.as_bytes(), &chunk(&vec![b' '; 520_000])].concat();
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(Client::sending(&server, &upload).await);
    }
    hear(&mut clients, 100, b"/problems/overloaded").await;
    let grown = raw::peak_bytes(server.pid()).saturating_sub(before);
    // Each connection may have read 128 KiB ahead.
    let ahead = 400 * (128 << 10);
    let max = BODIES_BYTES + SLACK_BYTES + ahead;
    assert!(grown < max, "{} MiB", grown >> 20);
    drop(clients);
    nothing_is_held(&server, "bodies").await;
}

/// The head and the payload of a client's frame, masked with zeros.
fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u64::try_from(payload.len()).unwrap().to_be_bytes();
    [&[opcode, 0xff][..], &length, &[0; 4], payload].concat()
}

#[tokio::test]
async fn messages_that_are_never_ended_cost_no_more_than_their_budget_and_those_beyond_are_told() {
    const MESSAGES_BYTES: u64 = 64 << 20;
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    server.api.ws().await;
    let before = raw::resident_bytes(server.pid());
    let upgrade = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    );
    let payload = vec![b' '; 500_000];
    // One part, and most of a second.
    let most = part(0x00, &payload);
    let message = [part(0x01, &payload), most[..most.len() - 10].to_vec()].concat();
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Client::sending(&server, upgrade.as_bytes()).await);
    }
    hear(&mut clients, 200, b"welcome").await;
    for client in &mut clients {
        client.stream.write_all(&message).await.unwrap();
    }
    let told = b"\x03\xf5too much is being received at once";
    hear(&mut clients, 130, told).await;
    let grown = raw::peak_bytes(server.pid()).saturating_sub(before);
    assert!(grown < MESSAGES_BYTES + SLACK_BYTES, "{} MiB", grown >> 20);
    let taken = held(&server, "messages").await;
    assert!(
        (MESSAGES_BYTES / 2..=MESSAGES_BYTES).contains(&taken),
        "{taken}"
    );
    // Small messages pass.
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "ping"})).await;
    ws.until("pong").await;
    drop(clients);
    nothing_is_held(&server, "messages").await;
}

#[tokio::test]
async fn a_socket_names_so_many_topics_and_subjects_and_no_more() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    let mut ws = server.api.ws().await;
    let before = raw::resident_bytes(server.pid());
    let topics: Vec<String> = (0..100).map(|n| format!("t{n}.x")).collect();
    let mut begun = Vec::new();
    for id in 0..100 {
        let id = id.to_string();
        let subjects: Vec<String> = (0..1_000).map(|n| format!("{id}-{n}")).collect();
        let wanted = json!({"type": "subscribe", "id": id, "topics": topics, "subjects": subjects});
        ws.send(wanted).await;
        loop {
            let frame = ws.next().await.unwrap().unwrap();
            match frame["type"].as_str().unwrap() {
                "subscribed" => begun.push(id.clone()),
                "error" => assert_eq!(frame["code"], "invalid-parameter", "{frame}"),
                _ => continue,
            }
            break;
        }
    }
    let grown = raw::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB for {}", grown >> 20, begun.len());
    assert_eq!(begun.len(), 9, "10,000 names are 9 times 1,100 and a rest");
    // Who unsubscribes has room again.
    ws.send(json!({"type": "unsubscribe", "id": begun[0]}))
        .await;
    ws.until("unsubscribed").await;
    ws.send(json!({"type": "subscribe", "id": "again", "topics": topics}))
        .await;
    assert_eq!(ws.until("subscribed").await["id"], "again");
}

#[tokio::test]
async fn who_takes_what_there_is_enters_no_index_before_it_waits_and_misses_nothing() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let readers = || server.app.hub.size().0;
    let (tenant, filter) = (Tenant::parse("dev").unwrap(), Filter::everything());
    let hub = &server.app.hub;
    let look = Follower::look(hub, tenant, Arc::new(filter), Start::Latest);
    let mut follower = look.await.unwrap();
    assert!(follower.read(10).await.unwrap().is_caught_up);
    assert_eq!(readers(), 0);
    drop(follower.turn());
    // Before it waits, and while it does.
    for id in ["before", "during"] {
        let append = json!({"id": id, "topic": "a"});
        let taken = if id == "before" {
            let stored = server.api.append(&append).await;
            let cursor = stored[0]["cursor"].as_str().unwrap().to_owned();
            server
                .api
                .page("latest", &format!("&at_least={cursor}"))
                .await;
            follower.next(10).await.unwrap()
        } else {
            let write = async {
                eventually(Duration::from_secs(10), async || match readers() {
                    1 => Ok(()),
                    other => Err(other),
                })
                .await;
                server.api.append(&append).await
            };
            tokio::join!(follower.next(10), write).0.unwrap()
        };
        let event: Value = serde_json::from_slice(&taken.events[0].json).unwrap();
        assert_eq!((taken.events.len(), &event["id"]), (1, &json!(id)));
    }
    drop(follower);
    assert_eq!(readers(), 0);
    server.stop().await;
}
