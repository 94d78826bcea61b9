//! What sessions hold is bounded: where it is too much the idle go, then the slowest, and nobody who reads.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::metrics::text;
use crate::support::client::{Sse, Ws};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const BUDGET: u64 = 16 << 20;
/// Events of 100 KB each: 16 MB, more than the lines of those who stop reading take.
const EVENTS: usize = 160;
const EVENT_BYTES: usize = 100_000;
const SLOW: usize = 14;

async fn sessions(api: &Api) -> Value {
    api.get("/v1/status").await["sessions"].clone()
}

/// Reads a socket until it ends, or has all: the cursor it has come to, how many events that were, and whether it ended. Whoever
/// takes nothing for a second after it was told to go is cut, and hears no code.
async fn to_the_end(ws: &mut Ws, mut next: usize) -> (Option<String>, usize, bool) {
    let mut cursor = None;
    while next < EVENTS {
        let message = tokio::time::timeout(PATIENCE, ws.socket.next()).await;
        let frame: Value = match message.expect("a frame or an end") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Close(Some(frame)))) => {
                assert_eq!(u16::from(frame.code), 1013, "{frame}");
                assert!(frame.reason.contains("resume"), "{frame}");
                return (cursor, next, true);
            }
            Some(Ok(_)) => continue,
            None | Some(Err(_)) => return (cursor, next, true),
        };
        for event in frame["events"].as_array().into_iter().flatten() {
            assert_eq!(event["id"], next.to_string(), "in order, nothing twice");
            next += 1;
        }
        if frame["type"] == "events" {
            cursor = frame["cursor"].as_str().map(str::to_owned);
        }
    }
    (cursor, next, false)
}

async fn write(api: &Api) {
    let data = "x".repeat(EVENT_BYTES);
    for first in (0..EVENTS).step_by(20) {
        let event = |n: usize| json!({"id": n.to_string(), "topic": "big", "data": data});
        api.append(&(first..first + 20).map(event).collect()).await;
    }
}

/// Reads on after a socket was closed, to the last event; how often it was told to go once more.
async fn resumes(api: &Api, mut cursor: Option<String>, mut next: usize) -> usize {
    let mut again = 0;
    while next < EVENTS {
        let mut ws = api.ws().await;
        let after = cursor.clone().unwrap_or_else(|| "earliest".to_owned());
        ws.subscribe("s", &["big"], &after).await;
        let (reached, read, has_ended) = to_the_end(&mut ws, next).await;
        (cursor, next) = (reached.or(cursor), read);
        again += usize::from(has_ended);
    }
    again
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn the_idle_go_before_the_slow_and_who_reads_stays() {
    let db = TestDb::new().await;
    let settings = [
        WITH_TOKENS,
        &["--session-bytes", "16777216", "--session-idle-s", "1"],
    ];
    let server = Server::start_with(&db.url, &settings.concat()).await;
    let [acme, beta] = ["acme", "beta"].map(|tenant| server.api.with_token(&token(tenant)));
    let mut idle = beta.ws().await;
    let mut healthy = beta.ws().await;
    healthy.subscribe("s", &["*"], "latest").await;
    healthy.until("live").await;
    // Nothing has happened on it for as long as idle takes.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(1_200) {
        beta.append(&json!({"topic": "deal.won"})).await;
        healthy.until("events").await;
    }
    let mut slow: Vec<Ws> = Vec::new();
    for _ in 0..SLOW {
        let mut ws = acme.ws().await;
        ws.subscribe("s", &["big"], "latest").await;
        ws.until("live").await;
        slow.push(ws);
    }
    let streamed: Sse = acme.sse("after=latest&topics=big", None).await.unwrap();
    let empty = sessions(&acme).await;
    assert_eq!(empty["bytes_max"], BUDGET);
    write(&acme).await;
    let most = std::sync::atomic::AtomicU64::new(0);
    eventually(PATIENCE, || async {
        let now = sessions(&acme).await;
        let held = now["bytes"].as_u64().unwrap();
        most.fetch_max(held, std::sync::atomic::Ordering::SeqCst);
        let evicted = (now["evicted"]["idle"] == 1) && now["evicted"]["slow"].as_u64() > Some(0);
        (evicted && held <= BUDGET).then_some(()).ok_or(now)
    })
    .await;
    // Those who are on their way out may hold a frame each for a moment.
    let most = most.into_inner();
    assert!(most < 3 * BUDGET, "{most}");
    assert_eq!(idle.close_code().await, 1013);
    // Another tenant's, who takes what it is sent.
    beta.append(&json!({"topic": "deal.won", "id": "still"}))
        .await;
    assert_eq!(healthy.until("events").await["events"][0]["id"], "still");
    let series = text(&acme).await;
    let has = |line: &str| series.lines().any(|one| one == line);
    assert!(
        has("tidewire_sessions_evicted_total{cause=\"idle\"} 1"),
        "{series}"
    );
    assert!(has("tidewire_sessions_limit_bytes 16777216"), "{series}");
    // Whoever was told to go comes back with its cursor, and misses nothing.
    let (mut gone, mut again) = (0, 0);
    for mut ws in slow {
        let (cursor, next, has_ended) = to_the_end(&mut ws, 0).await;
        if has_ended {
            gone += 1;
            if gone <= 2 {
                again += resumes(&acme, cursor, next).await;
            }
        }
    }
    let series = text(&acme).await;
    let told = format!(
        "tidewire_websocket_closes_total{{code=\"1013\"}} {}",
        gone + again + 1
    );
    assert!(series.lines().any(|one| one == told), "{told}: {series}");
    assert!((1..SLOW).contains(&gone), "{gone}");
    drop(streamed);
    eventually(PATIENCE, || async {
        let now = sessions(&acme).await;
        let is_idle = now["sessions"].as_u64() <= Some(2) && now["bytes"].as_u64() < Some(64 << 10);
        is_idle.then_some(()).ok_or(now)
    })
    .await;
    server.stop().await;
}

/// What a stream sends counts until the client has taken it, and a stream that is told to go is cut.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stop_reading_are_cut_and_come_back() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--session-bytes", "16777216"]).await;
    let api = &server.api;
    write(api).await;
    let mut streams = Vec::new();
    for _ in 0..24 {
        streams.push(api.sse("after=earliest&topics=big", None).await.unwrap());
    }
    eventually(PATIENCE, || async {
        let now = sessions(api).await;
        let is_bounded = now["bytes"].as_u64() <= Some(BUDGET);
        let is_done = is_bounded && now["evicted"]["slow"].as_u64() > Some(0);
        is_done.then_some(()).ok_or(now)
    })
    .await;
    let mut cut = 0;
    for mut stream in streams {
        let (mut next, mut last) = (0, None);
        while next < EVENTS {
            if let Ok(Some((events, cursor))) = stream.events().await {
                for event in events {
                    assert_eq!(event["id"], next.to_string(), "in order, nothing twice");
                    next += 1;
                }
                last = Some(cursor);
            } else {
                cut += 1;
                let again = api.sse("topics=big&after=earliest", last.as_deref()).await;
                stream = again.unwrap();
            }
        }
    }
    assert!(cut > 0);
    server.stop().await;
}

/// Long-polls and streams are sessions as well: an administrator ends them where nothing has happened on them.
#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_and_long_polls_are_ended_by_administrators() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let api = server.api.clone();
    let mut stream = api.sse("after=latest", None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    let mut polling = tokio::task::JoinSet::new();
    polling.spawn(async move { api.try_get("/v1/events?after=latest&wait=60").await });
    let dropped = std::sync::atomic::AtomicU64::new(0);
    eventually(PATIENCE, || async {
        let wanted = json!({"idle_s": 1});
        let path = "/v1/admin/sessions/drop-idle";
        let request = server
            .api
            .request(reqwest::Method::POST, path)
            .json(&wanted);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let more = answer["dropped"].as_u64().unwrap();
        let sum = dropped.fetch_add(more, std::sync::atomic::Ordering::SeqCst) + more;
        (sum == 2).then_some(()).ok_or(sum)
    })
    .await;
    let (status, page) = tokio::time::timeout(PATIENCE, polling.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&page["events"], page["cursor"].is_string()),
        (&json!([]), true)
    );
    // It is told when to come back, and ends.
    while let Some(message) = stream.next().await.unwrap() {
        assert_ne!(message.event, "error", "{message:?}");
    }
    server.stop().await;
}
