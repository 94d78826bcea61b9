//! Live subscriptions that fall behind the window: each goes on, or ends, as it asked.

use std::ops::Range;

use serde_json::{Value, json};

use crate::support::client::Ws;
use crate::support::{Server, TestDb};

/// 30 MB: more than the line takes, and than the window holds.
const EVENTS: usize = 300;
const EVENT_BYTES: usize = 100_000;
const SMALL_WINDOW: &[&str] = &["--window-events", "2000", "--window-bytes", "2_097_152"];

/// A live subscription that stopped reading while `EVENTS` events were written, of which the window holds the last few.
async fn stalled(server: &Server, db: &TestDb, on_lag: &str) -> Ws {
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "s", "on_lag": on_lag}))
        .await;
    ws.until("live").await;
    // A little at a time, so that it is delivered until the line is full.
    for from in (0..EVENTS).step_by(10) {
        write(server, db, "big", from..from + 10, EVENT_BYTES).await;
    }
    ws
}

/// Writes events `<topic>-<number>` and waits until the server can deliver them.
async fn write(server: &Server, db: &TestDb, topic: &str, numbers: Range<usize>, bytes: usize) {
    let client = db.connect().await;
    let statement = format!(
        "INSERT INTO tidewire.events (tenant, id, topic, data)
         SELECT 'dev', '{topic}-' || n, '{topic}', to_jsonb(repeat('x', {bytes}))
           FROM generate_series({}, {}) AS n",
        numbers.start,
        numbers.end - 1
    );
    client.batch_execute(&statement).await.unwrap();
    let newest =
        "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events ORDER BY seq DESC LIMIT 1";
    let newest: String = client.query_one(newest, &[]).await.unwrap().get(0);
    server
        .api
        .page("latest", &format!("&at_least={newest}"))
        .await;
}

/// What a reader has had: so many events, one after the other, and the last cursor.
struct Place {
    next: usize,
    cursor: String,
}

impl Place {
    fn start() -> Self {
        let cursor = "earliest".to_owned();
        Self { next: 0, cursor }
    }

    /// Takes an `events` frame or a page.
    fn take(&mut self, page: &Value) {
        for event in page["events"].as_array().unwrap() {
            let wanted = format!("big-{}", self.next);
            assert_eq!(event["id"], wanted, "in order, none left out");
            self.next += 1;
        }
        page["cursor"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.cursor);
    }
}

#[tokio::test]
async fn who_skips_is_told_of_each_gap_and_goes_on_at_the_present() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut ws = stalled(&server, &db, "skip").await;
    let newest = server.api.page("latest", "").await["cursor"].take();
    let newest = newest.as_str().unwrap();
    let mut place = Place::start();
    let (mut events, mut gaps) = (0, 0);
    // Cursors of one log are ordered as text.
    while place.next == 0 || place.cursor.as_str() < newest {
        let frame = ws.next().await.unwrap().unwrap();
        if frame["type"] == "events" {
            events += frame["events"].as_array().unwrap().len();
            place.take(&frame);
            continue;
        }
        let what = (&frame["type"], &frame["id"], &frame["reason"]);
        assert_eq!(what, (&json!("gap"), &json!("s"), &json!("lag")));
        assert_eq!(frame["from"], place.cursor, "where the events ended");
        gaps += 1;
        let before = place.next;
        // What was left out lies between its ends.
        let to = frame["to"].as_str().unwrap();
        while place.cursor.as_str() < to {
            let page = server.api.page(&place.cursor, "&limit=1").await;
            place.take(&page);
        }
        assert_eq!(place.cursor, to);
        assert_eq!(frame["count"], place.next - before, "{frame}");
    }
    assert_eq!(place.next, EVENTS);
    assert!(0 < events && events < EVENTS, "{events}");
    assert!(gaps > 0);
    server.api.append(&json!({"id": "new", "topic": "a"})).await;
    let frame = ws.next().await.unwrap().unwrap();
    assert_eq!(frame["events"][0]["id"], "new", "{frame}");
    server.stop().await;
}

#[tokio::test]
async fn who_disconnects_is_closed_and_comes_back_with_its_cursor() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut ws = stalled(&server, &db, "disconnect").await;
    let mut place = Place::start();
    let code = loop {
        match ws.frame_or_close().await {
            Ok(frame) => place.take(&frame),
            Err(code) => break code,
        }
    };
    assert_eq!(code, 1013);
    assert!(0 < place.next && place.next < EVENTS, "{}", place.next);
    let mut again = server.api.ws().await;
    again.subscribe("s", &["*"], &place.cursor).await;
    while place.next < EVENTS {
        place.take(&again.until("events").await);
    }
    server.stop().await;
}

#[tokio::test]
async fn who_catches_up_gets_everything() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut ws = stalled(&server, &db, "catch_up").await;
    let mut place = Place::start();
    while place.next < EVENTS {
        let frame = ws.next().await.unwrap().unwrap();
        assert_eq!(frame["type"], "events", "{frame}");
        place.take(&frame);
    }
    server.api.append(&json!({"id": "new", "topic": "a"})).await;
    let frame = ws.next().await.unwrap().unwrap();
    assert_eq!(frame["events"][0]["id"], "new", "{frame}");
    server.stop().await;
}

/// It rests for its interval while what came falls out of the window: a gap, from where the events ended to the present.
#[tokio::test(flavor = "multi_thread")]
async fn who_skips_and_conflates_is_told_of_what_fell_out_within_an_interval() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut ws = server.api.ws().await;
    let wanted = json!({"type": "subscribe", "id": "s", "on_lag": "skip", "conflate_ms": 3_000});
    ws.send(wanted).await;
    ws.until("live").await;
    write(&server, &db, "big", 0..1, 10).await;
    let first = ws.until("events").await;
    let mut place = Place::start();
    place.take(&first);
    write(&server, &db, "big", 1..60, EVENT_BYTES).await;
    let gap = ws.next().await.unwrap().unwrap();
    assert_eq!(
        (&gap["type"], &gap["reason"]),
        (&json!("gap"), &json!("lag"))
    );
    assert_eq!(gap["from"], place.cursor, "where the events ended");
    let to = gap["to"].as_str().unwrap();
    let before = place.next;
    while place.cursor.as_str() < to {
        place.take(&server.api.page(&place.cursor, "&limit=1").await);
    }
    assert_eq!(place.cursor, to);
    assert_eq!(gap["count"], place.next - before, "{gap}");
    // What had come after the place that it skipped to, and what comes now; two of a subject are one.
    write(&server, &db, "small", 0..2, 10).await;
    let mut delivered = u64::try_from(place.next).unwrap();
    while delivered < 62 {
        let frame = ws.next().await.unwrap().unwrap();
        assert_eq!(frame["type"], "events", "{frame}");
        delivered += u64::try_from(frame["events"].as_array().unwrap().len()).unwrap();
        delivered += frame["conflated"].as_u64().unwrap_or_default();
    }
    assert_eq!(delivered, 62, "each was delivered, left out or skipped");
    server.stop().await;
}

/// `on_lag` is a WebSocket's: a stream of server-sent events has its cursor in every message, so it always catches up.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_falls_behind_gets_everything() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let refused = server.api.sse("after=latest&on_lag=skip", None).await;
    assert_eq!(refused.unwrap().response.status(), 400);
    let mut stream = server.api.sse("after=latest", None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
    for from in (0..EVENTS).step_by(10) {
        write(&server, &db, "big", from..from + 10, EVENT_BYTES).await;
    }
    let mut place = Place::start();
    while place.next < EVENTS {
        let (events, cursor) = stream.events().await.unwrap().unwrap();
        place.take(&json!({"events": events, "cursor": cursor}));
    }
    let series = crate::metrics::text(&server.api).await;
    let lagged = "tidewire_lagged_total{on_lag=\"catch_up\"} 0";
    assert!(!series.lines().any(|line| line == lagged), "it fell behind");
    server.stop().await;
}

/// Its cursor is old, since nothing has matched for long; but it has been given everything that did.
#[tokio::test]
async fn a_quiet_subscription_has_not_fallen_behind_however_loud_the_others_are() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut sockets = Vec::new();
    for on_lag in ["catch_up", "skip", "disconnect"] {
        let mut ws = server.api.ws().await;
        ws.send(json!({"type": "subscribe", "id": "s", "topics": ["quiet"], "on_lag": on_lag}))
            .await;
        ws.until("live").await;
        sockets.push((on_lag, ws));
    }
    write(&server, &db, "loud", 0..5_000, 10).await;
    server
        .api
        .append(&json!({"id": "quiet", "topic": "quiet"}))
        .await;
    for (on_lag, mut ws) in sockets {
        let frame = ws.frame_or_close().await.expect(on_lag);
        assert_eq!(frame["type"], "events", "{on_lag}: {frame}");
        assert_eq!(frame["events"][0]["id"], "quiet", "{on_lag}");
    }
    server.stop().await;
}

/// The window holds hardly an event here, so that every read meets its edge: what history says then must reach as far as
/// what the reader had been woken for. (With a pause in `Hub::publish` before it moves the head this always failed.)
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_edge_of_the_window_misses_nothing() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--window-bytes", "1_048_576"]).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut ws = server.api.ws().await;
        ws.subscribe("s", &["*"], "latest").await;
        ws.until("live").await;
        sockets.push(ws);
    }
    let writer = async {
        for number in 0..100 {
            write(&server, &db, "big", number..number + 1, EVENT_BYTES).await;
        }
    };
    let readers = sockets.iter_mut().map(async |ws| {
        let mut place = Place::start();
        while place.next < 100 {
            place.take(&ws.until("events").await);
        }
    });
    tokio::join!(writer, futures_util::future::join_all(readers));
    server.stop().await;
}
