//! Server-sent events: what browsers rely on.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Server, TestDb};

#[tokio::test]
async fn last_event_id_wins_over_after_and_an_empty_one_means_none() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let answers = server
        .api
        .append(&json!([{"id": "one", "topic": "a"}, {"id": "two", "topic": "a"}]))
        .await;
    let first = answers[0]["cursor"].as_str().unwrap();
    let last = answers[1]["cursor"].as_str().unwrap();
    server
        .api
        .page("earliest", &format!("&at_least={last}"))
        .await;
    for (after, resume, expected) in [
        ("earliest", None, &["one", "two"][..]),
        ("earliest", Some(""), &["one", "two"]),
        ("earliest", Some(first), &["two"]),
        (first, Some("earliest"), &["one", "two"]),
    ] {
        let query = format!("after={after}");
        let mut stream = server.api.sse(&query, resume).await.unwrap();
        let (events, cursor) = stream.events().await.unwrap().unwrap();
        let ids: Vec<&str> = events.iter().map(|e| e["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{after} {resume:?}");
        assert_eq!(cursor, last);
        let live = stream.next().await.unwrap().unwrap();
        assert_eq!(
            (live.event.as_str(), live.id.as_deref()),
            ("live", Some(last))
        );
    }
    server.stop().await;
}

/// Whoever has seen the answer's head is in: what is written from then on it gets, whenever it reads on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_once_a_stream_has_its_200_is_delivered() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for n in 0..50 {
        let mut stream = server.api.sse("after=latest", None).await.unwrap();
        assert_eq!(stream.response.status(), StatusCode::OK);
        let id = format!("e-{n}");
        server.api.append(&json!({"id": id, "topic": "a"})).await;
        let (events, _) = stream.events().await.unwrap().unwrap();
        assert_eq!(
            events[0]["id"], id,
            "the first after it, and nothing before"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn the_stream_is_plain_enough_for_every_proxy_and_browser() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let answer = server
        .api
        .append(&json!({"topic": "a", "data": "line\nline\r\nline\u{2028}"}))
        .await;
    let cursor = answer[0]["cursor"].as_str().unwrap();
    let query = format!("after=earliest&at_least={cursor}");
    let mut stream = server.api.sse(&query, None).await.unwrap();
    let headers = stream.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("event: live") {
        text.extend(stream.response.chunk().await.unwrap().unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("retry: "), "{text}");
    assert!(!text.contains('\r') && !text.starts_with('\u{feff}'));
    let data = text
        .lines()
        .filter(|line| line.starts_with("data: ["))
        .count();
    assert_eq!(data, 1, "{text}");
    for id in text.lines().filter_map(|line| line.strip_prefix("id: ")) {
        assert!(
            id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')),
            "{id}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn final_conditions_are_told_in_the_stream_and_the_return_is_answered_with_204() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let unknown = "000g00000000000000000000000000v0";
    let (status, _) = server
        .api
        .try_get(&format!("/v1/events?after={unknown}"))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let mut stream = server.api.sse("topics=*", Some(unknown)).await.unwrap();
    assert_eq!(stream.response.status(), StatusCode::OK);
    let told = stream.next().await.unwrap().unwrap();
    assert_eq!(told.event, "error");
    assert!(told.data.contains("/problems/cursor-unknown"));
    assert_eq!(stream.next().await.unwrap(), None);
    let back = server
        .api
        .sse("topics=*", told.id.as_deref())
        .await
        .unwrap();
    assert_eq!(back.response.status(), StatusCode::NO_CONTENT);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_a_token_may_stand_in_the_address() {
    let db = TestDb::new().await;
    let arguments = [WITH_TOKENS, &["--jwt-leeway-s", "0"]].concat();
    let server = Server::start_with(&db.url, &arguments).await;
    let bare = Api::new(&server.api.url);
    let refused = bare.sse("after=latest", None).await.unwrap();
    assert_eq!(refused.response.status(), StatusCode::UNAUTHORIZED);
    let short = token::issue(&tidewire::access::Claims {
        exp: token::in_seconds(2),
        ..token::claims("acme")
    });
    let mut stream = bare
        .sse(&format!("after=latest&token={short}"), None)
        .await
        .unwrap();
    assert_eq!(stream.response.status(), StatusCode::OK);
    assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    let told = loop {
        let message = stream.next().await.unwrap().unwrap();
        if message.event != "heartbeat" {
            break message;
        }
    };
    assert_eq!(told.event, "error");
    assert!(
        told.data.contains("/problems/unauthenticated"),
        "{}",
        told.data
    );
    assert_eq!(stream.next().await.unwrap(), None);
    // Pages take the header only.
    let (status, problem) = bare
        .try_get(&format!("/v1/events?token={}", token::token("acme")))
        .await;
    assert_eq!(
        (status, &problem["type"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("/problems/invalid-parameter")
        )
    );
    server.stop().await;
}

#[tokio::test]
async fn a_draining_server_ends_the_stream_with_a_time_to_come_back() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut stream = server.api.sse("after=latest", None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    let mut response = stream.response;
    server.stop().await;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend(chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("retry: ") && !text.contains("event: error"),
        "{text}"
    );
}

/// Streams that wait for a watermark which an open transaction holds back wait by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_for_at_least_holds_up_no_other_reader() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "a"})).await;
    let holder = db.connect().await;
    holder.batch_execute("BEGIN").await.unwrap();
    let append = "SELECT cursor FROM tidewire.append('a', tenant => 'dev')";
    let held: String = holder.query_one(append, &[]).await.unwrap().get(0);
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let api = server.api.clone();
        let query = format!("after=earliest&at_least={held}");
        waiting.spawn(async move { api.sse(&query, None).await.is_ok() });
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let one = Instant::now();
        server.api.page("earliest", "&limit=1").await;
        server.api.ws().await;
        assert!(
            one.elapsed() < Duration::from_secs(1),
            "{:?}",
            one.elapsed()
        );
    }
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(waiting.join_all().await.into_iter().all(|opened| opened));
    server.stop().await;
}

#[tokio::test]
async fn an_idle_stream_says_every_fifteen_seconds_that_it_is_there_and_where() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let query = "topics=quiet&after=latest";
    let mut sse = server.api.sse(query, None).await.unwrap();
    assert_eq!(sse.next().await.unwrap().unwrap().event, "live");
    let began = Instant::now();
    let other = server.api.append(&json!({"topic": "other"})).await;
    let beat = sse.next().await.unwrap().unwrap();
    let waited = began.elapsed();
    assert_eq!(beat.event, "heartbeat");
    // A little for the machine.
    assert!(waited < Duration::from_secs(16), "{waited:?}");
    let data: Value = serde_json::from_str(&beat.data).unwrap();
    let cursor = data["cursor"].as_str();
    assert_eq!(cursor, beat.id.as_deref());
    assert_eq!(
        cursor,
        other[0]["cursor"].as_str(),
        "past what did not match"
    );
    server.stop().await;
}
