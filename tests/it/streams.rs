//! Over HTTP/2 many share a connection, as behind a proxy: who is told to go because it takes nothing takes nobody along.

use std::time::Duration;

use axum::http::Request;
use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually, raw};

const PATIENCE: Duration = Duration::from_secs(30);
const BUDGET: u64 = 16 << 20;
/// Events of 100 KB each.
const EVENTS: usize = 100;
const EVENT_BYTES: usize = 100_000;
/// Two pages of a stream that takes nothing are held: 28 MB.
const STUCK: usize = 14;

/// A stream of server-sent events of this tenant.
async fn follow(requests: &mut SendRequest<Bytes>, tenant: &str, query: &str) -> RecvStream {
    let path = format!("http://localhost/v1/events?{query}&token={}", token(tenant));
    let request = Request::get(path).header("accept", "text/event-stream");
    let mut ready = requests.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(request.body(()).unwrap(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

async fn sessions(api: &Api) -> Value {
    api.get("/v1/status").await["sessions"].clone()
}

/// What comes next on it; none at its end.
async fn next(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = tokio::time::timeout(PATIENCE, stream.data()).await;
    let piece = piece.expect("something in time");
    if let Some(Ok(piece)) = &piece {
        stream.flow_control().release_capacity(piece.len()).unwrap();
    }
    piece
}

/// Reads until this has come.
async fn until(stream: &mut RecvStream, text: &str) {
    let mut read = String::new();
    while !read.contains(text) {
        let piece = next(stream).await.expect("it goes on").unwrap();
        read.push_str(std::str::from_utf8(&piece).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_told_to_go_ends_alone() {
    let db = TestDb::new().await;
    let settings = [WITH_TOKENS, &["--session-bytes", "16777216"]].concat();
    let server = Server::start_with(&db.url, &settings).await;
    let [acme, beta] = ["acme", "beta"].map(|tenant| server.api.with_token(&token(tenant)));
    let data = "x".repeat(EVENT_BYTES);
    for first in (0..EVENTS).step_by(20) {
        let event = |n: usize| json!({"id": n.to_string(), "topic": "big", "data": data});
        acme.append(&(first..first + 20).map(event).collect()).await;
    }
    let line = raw::connect(&server.api).await;
    let mut builder = h2::client::Builder::new();
    // What nobody takes of one stream leaves room for the others.
    builder.initial_connection_window_size(1 << 30);
    let (mut requests, connection) = builder.handshake::<_, Bytes>(line).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let mut healthy = follow(&mut requests, "beta", "after=latest").await;
    until(&mut healthy, "event: live").await;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(follow(&mut requests, "acme", "after=earliest&topics=big").await);
    }
    // Whoever is told to go is gone, with all that it held.
    let evicted = eventually(PATIENCE, || async {
        let now = sessions(&acme).await;
        let slow = now["evicted"]["slow"].as_u64().unwrap();
        let left = u64::try_from(STUCK).unwrap() + 1 - slow;
        let is_gone = slow > 0 && now["sessions"] == left && now["bytes"].as_u64() <= Some(BUDGET);
        is_gone.then_some(slow).ok_or(now)
    })
    .await;
    for id in ["still", "here"] {
        beta.append(&json!({"topic": "deal.won", "id": id})).await;
        until(&mut healthy, id).await;
    }
    assert!(driving.try_join_next().is_none(), "the connection stays");
    let (mut resets, mut ends) = (0, 0);
    for mut stream in stuck {
        let mut read = 0;
        while read <= EVENTS * EVENT_BYTES {
            match next(&mut stream).await {
                Some(Ok(piece)) => read += piece.len(),
                Some(Err(error)) => {
                    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
                    resets += 1;
                    break;
                }
                // Told only now, when it was taking something: it heard when to come back.
                None => {
                    ends += 1;
                    break;
                }
            }
        }
    }
    let told = sessions(&acme).await["evicted"]["slow"].as_u64().unwrap();
    assert!(resets >= evicted, "{resets} of {evicted}");
    assert_eq!(resets + ends, told, "who takes what it gets has it all");
    beta.append(&json!({"topic": "deal.won", "id": "last"}))
        .await;
    until(&mut healthy, "last").await;
    server.stop().await;
}
