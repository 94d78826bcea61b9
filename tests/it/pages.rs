//! `GET /v1/events`: pages, their caching, long-poll, `since`, `at_least`.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Server, TestDb, eventually};

#[tokio::test]
async fn a_full_page_after_a_cursor_never_changes_and_may_be_kept() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server
        .api
        .append(&json!([{"topic": "a"}, {"topic": "a"}, {"topic": "a"}, {"topic": "a"}]))
        .await;
    server.api.page("earliest", "&limit=4&wait=5").await;
    let first = server.api.page("earliest", "&limit=1").await;
    let first = first["cursor"].as_str().unwrap();
    let path = format!("/v1/events?after={first}&limit=2");
    let get = async |path: &str, known: Option<&str>| {
        let mut request = server.api.request(Method::GET, path);
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        request.send().await.unwrap()
    };
    let full = get(&path, None).await;
    let etag = full.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(
        full.headers()["cache-control"],
        "private, no-cache",
        "what it holds may be erased"
    );
    assert_eq!(full.headers()["vary"], "accept, authorization");
    let cursor = full.headers()["tidewire-cursor"]
        .to_str()
        .unwrap()
        .to_owned();
    let known = get(&path, Some(&etag)).await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(known.headers()["etag"], etag.as_str());
    assert!(known.bytes().await.unwrap().is_empty());
    let other = get(&path, Some("\"x\"")).await;
    assert_eq!(other.status(), StatusCode::OK);
    let rest = get(&format!("/v1/events?after={cursor}&limit=2"), None).await;
    assert_eq!(rest.headers()["cache-control"], "no-store");
    assert!(!rest.headers().contains_key("etag"));
    let head = server
        .api
        .request(Method::HEAD, &path)
        .send()
        .await
        .unwrap();
    assert_eq!(head.headers()["etag"], etag.as_str());
    assert!(head.bytes().await.unwrap().is_empty());
    // What these begin with is not fixed: retention moves it.
    for place in ["", "after=earliest", "since=2000-01-01T00:00:00Z"] {
        let path = format!("/v1/events?{place}&limit=2");
        let full = get(&path, None).await;
        assert_eq!(full.headers()["cache-control"], "private, no-cache");
        let etag = full.headers()["etag"].to_str().unwrap().to_owned();
        let known = get(&path, Some(&etag)).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    }
    server.stop().await;
}

/// From history and from the window alike: a page that ends elsewhere would not be the one a cache has kept.
#[tokio::test]
async fn limits_by_count_and_by_bytes_hold_and_lose_nothing() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let big = "x".repeat(200 * 1024);
    for _ in 0..4 {
        let events: Vec<_> = (0..3)
            .map(|_| json!({"topic": "big", "data": big}))
            .collect();
        server.api.append(&json!(events)).await;
    }
    for _ in 0..3 {
        let small: Vec<_> = (0..1_000).map(|_| json!({"topic": "small"})).collect();
        server.api.append(&json!(small)).await;
    }
    let log = db.log().await;
    let other = Server::start_with(&db.url, &["--window-events", "2000"]).await;
    for server in [&server, &other] {
        eventually(Duration::from_secs(5), async || {
            let status = server.api.get("/v1/status").await;
            let lag = log.last().map(|(seq, _)| *seq) != status["log"]["watermark"].as_i64();
            if lag { Err(status) } else { Ok(()) }
        })
        .await;
    }
    let of_window = all_pages(&server).await;
    let of_history = all_pages(&other).await;
    assert_eq!(of_window, of_history, "a page ends where it ends");
    assert!(of_window.len() >= 6, "{}", of_window.len());
    let expected: Vec<String> = log.into_iter().map(|(_, id)| id).collect();
    assert_eq!(of_window.concat(), expected);
    for server in [server, other] {
        let one = server.api.page("earliest", "&limit=1").await;
        assert_eq!(one["events"].as_array().unwrap().len(), 1);
        assert_eq!(one["has_more"], true);
        server.stop().await;
    }
}

/// The ids of each page.
async fn all_pages(server: &Server) -> Vec<Vec<String>> {
    let (mut pages, mut cursor) = (Vec::new(), "earliest".to_owned());
    loop {
        let page = server.api.page(&cursor, "&limit=1000").await;
        let bytes = page.to_string().len();
        assert!(bytes < (1 << 20) + 100, "{bytes}");
        let events = page["events"].as_array().unwrap();
        let ids = events.iter().map(|e| e["id"].as_str().unwrap().to_owned());
        pages.push(ids.collect());
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        if page["has_more"] == false {
            return pages;
        }
    }
}

#[tokio::test]
async fn since_begins_with_the_first_event_recorded_then() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for id in ["one", "two", "three"] {
        let answer = server.api.append(&json!({"id": id, "topic": "a"})).await;
        let cursor = answer[0]["cursor"].as_str().unwrap().to_owned();
        server
            .api
            .page("latest", &format!("&at_least={cursor}"))
            .await;
    }
    let all = server.api.page("earliest", "").await;
    for index in 0..3 {
        let time = all["events"][index]["recorded_at"].as_str().unwrap();
        let page = server.api.get(&format!("/v1/events?since={time}")).await;
        // The answer's time may be rounded down to the next event's.
        let found = page["events"].as_array().unwrap().len();
        assert_eq!(found, 3 - index, "{time}");
    }
    for (since, count) in [
        ("1970-01-01T00:00:00Z", 3),
        ("2999-01-01T00:00:00%2B02:00", 0),
    ] {
        let page = server.api.get(&format!("/v1/events?since={since}")).await;
        assert_eq!(page["events"].as_array().unwrap().len(), count, "{since}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_long_poll_answers_at_once_on_a_match_and_with_a_fresh_cursor_when_the_time_is_up() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let began = Instant::now();
    let poll = server.api.page("latest", "&topics=wanted&wait=30");
    let write = async {
        eventually(Duration::from_secs(5), async || {
            let readers = server.app.hub.size().0;
            if readers == 1 { Ok(()) } else { Err(readers) }
        })
        .await;
        server
            .api
            .append(&json!([{"topic": "other"}, {"topic": "wanted"}]))
            .await
    };
    let (page, answers) = tokio::join!(poll, write);
    assert_eq!(page["events"][0]["topic"], "wanted");
    assert_eq!(page["cursor"], answers[1]["cursor"]);
    assert!(began.elapsed() < Duration::from_secs(15));
    let other = server.api.append(&json!({"topic": "other"})).await;
    let page = server
        .api
        .page(page["cursor"].as_str().unwrap(), "&topics=wanted&wait=1")
        .await;
    assert_eq!(page["events"], json!([]));
    assert!(
        page["cursor"].as_str() >= other[0]["cursor"].as_str(),
        "fresh"
    );
    server.stop().await;
}

#[tokio::test]
async fn at_least_waits_for_an_open_transaction_and_not_for_ever() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    // The first event makes the chunk; whoever writes into it meanwhile waits for that transaction.
    let first = server.api.append(&json!({"topic": "a"})).await;
    let client = db.connect().await;
    client
        .batch_execute("BEGIN; SELECT tidewire.append('late', id => 'late')")
        .await
        .unwrap();
    let answer = server
        .api
        .append(&json!({"id": "early", "topic": "a"}))
        .await;
    let cursor = answer[0]["cursor"].as_str().unwrap();
    let after = first[0]["cursor"].as_str().unwrap();
    let path = format!("/v1/events?after={after}&at_least={cursor}");
    let began = Instant::now();
    let response = server.api.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert!(began.elapsed() < Duration::from_secs(20));
    let (page, committed) = tokio::join!(server.api.get(&path), client.batch_execute("COMMIT"));
    committed.unwrap();
    assert_eq!(page["events"][0]["id"], "late");
    assert_eq!(page["events"][1]["id"], "early");
    server.stop().await;
}
