//! Readers that stand still while retention removes what they have not read.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::client::Ws;
use crate::support::{Server, TestDb, eventually};

/// 30 MB: more than a line takes.
const EVENTS: usize = 300;
/// The window holds the last few of them.
const SMALL_WINDOW: &[&str] = &["--window-events", "2000", "--window-bytes", "2_097_152"];

/// A log whose chunks are a second long, so that retention can remove what has just been written.
async fn short_chunks(db: &TestDb) -> Client {
    let client = db.connect().await;
    client
        .batch_execute(
            "SELECT public.drop_chunks('tidewire.events', older_than => now() + interval '1 year');
             SELECT public.set_chunk_time_interval('tidewire.events', interval '1 second')",
        )
        .await
        .unwrap();
    client
}

/// Writes the events `old-0`, `old-1`, … of 100 KB each, a little at a time, so that they are delivered until the lines
/// are full.
async fn write(server: &Server, client: &Client) {
    for from in (0..EVENTS).step_by(10) {
        let statement = format!(
            "INSERT INTO tidewire.events (tenant, id, topic, data)
             SELECT 'dev', 'old-' || n, 'a', to_jsonb(repeat('x', 100000)) FROM generate_series({from}, {}) AS n",
            from + 9
        );
        client.batch_execute(&statement).await.unwrap();
        let newest = "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events ORDER BY seq DESC LIMIT 1";
        let newest: String = client.query_one(newest, &[]).await.unwrap().get(0);
        let path = format!("&at_least={newest}");
        server.api.page("latest", &path).await;
    }
}

/// Removes all that has been written, in one go. Nobody tells the server: retention may run anywhere.
async fn remove_all(client: &Client) {
    let is_past =
        "SELECT clock_timestamp() > date_trunc('second', max(recorded_at)) + interval '1 second'
                     FROM tidewire.events";
    eventually(Duration::from_secs(20), async || {
        let row = client.query_one(is_past, &[]).await.unwrap();
        row.get::<_, bool>(0).then_some(()).ok_or("its chunk lasts")
    })
    .await;
    let newest = "SELECT max(seq) FROM tidewire.events";
    let newest: i64 = client.query_one(newest, &[]).await.unwrap().get(0);
    let retain = "SELECT tidewire.retain('0 seconds')";
    client.batch_execute(retain).await.unwrap();
    let retained = "SELECT retained_seq FROM tidewire.log";
    let retained: i64 = client.query_one(retained, &[]).await.unwrap().get(0);
    assert_eq!(retained, newest);
}

/// Reads until a frame that holds no events, after `first`. Returns it, with the last cursor before it.
async fn until_other(ws: &mut Ws, mut first: Option<Value>) -> (Value, String) {
    let (mut next, mut cursor) = (0, String::new());
    loop {
        let frame = match first.take() {
            Some(first) => first,
            None => ws.next().await.unwrap().unwrap(),
        };
        if frame["type"] != "events" {
            assert!(0 < next && next < EVENTS, "{next}: {frame}");
            return (frame, cursor);
        }
        for event in frame["events"].as_array().unwrap() {
            assert_eq!(event["id"], format!("old-{next}"), "no silent loss");
            next += 1;
        }
        frame["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn a_socket_is_told_of_the_gap_and_goes_on_with_the_earliest_event_left() {
    let db = TestDb::new().await;
    let client = short_chunks(&db).await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let mut live = server.api.ws().await;
    live.subscribe("s", &["*"], "latest").await;
    live.until("live").await;
    write(&server, &client).await;
    let mut behind = server.api.ws().await;
    behind.subscribe("s", &["*"], "earliest").await;
    // Its first page is under way, so that retention overtakes it in the middle.
    let first = behind.next().await.unwrap().unwrap();
    remove_all(&client).await;
    server
        .api
        .append(&json!([{"id": "new-0", "topic": "a"}, {"id": "new-1", "topic": "a"}]))
        .await;
    let earliest = "SELECT tidewire.cursor(retained_seq, retained_at) FROM tidewire.log";
    let earliest: String = client.query_one(earliest, &[]).await.unwrap().get(0);
    for (mut ws, first) in [(live, None), (behind, Some(first))] {
        let (gap, cursor) = until_other(&mut ws, first).await;
        let what = (&gap["type"], &gap["id"], &gap["reason"]);
        assert_eq!(what, (&json!("gap"), &json!("s"), &json!("retention")));
        assert_eq!(
            (&gap["from"], &gap["to"]),
            (&json!(cursor), &json!(earliest))
        );
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let frame = ws.next().await.unwrap().unwrap();
            assert!(
                frame["type"] == "events" || frame["type"] == "live",
                "{frame}"
            );
            let events = frame["events"].as_array().cloned().unwrap_or_default();
            seen.extend(events.into_iter().map(|event| event["id"].clone()));
        }
        assert_eq!(seen, ["new-0", "new-1"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_is_told_the_final_word_and_a_first_request_gets_410() {
    let db = TestDb::new().await;
    let client = short_chunks(&db).await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    let before = server.api.page("latest", "").await["cursor"].take();
    let before = before.as_str().unwrap();
    let mut sse = server.api.sse("after=latest", None).await.unwrap();
    assert_eq!(sse.next().await.unwrap().unwrap().event, "live");
    write(&server, &client).await;
    remove_all(&client).await;
    server.api.append(&json!({"id": "new", "topic": "a"})).await;
    let mut next = 0;
    let told = loop {
        let message = sse.next().await.unwrap().unwrap();
        if message.event == "error" {
            break message;
        }
        assert_eq!(message.event, "message", "{message:?}");
        let events: Vec<Value> = serde_json::from_str(&message.data).unwrap();
        for event in events {
            assert_eq!(event["id"], format!("old-{next}"), "no silent loss");
            next += 1;
        }
    };
    assert!(0 < next && next < EVENTS, "{next}");
    assert_eq!(told.id.as_deref(), Some("none:cursor-expired"));
    assert_eq!(sse.next().await.unwrap(), None, "it ends");
    let problem: Value = serde_json::from_str(&told.data).unwrap();
    assert_eq!(problem["type"], "/problems/cursor-expired");
    let earliest = problem["earliest_cursor"].as_str().unwrap();
    let page = server.api.page(earliest, "").await;
    assert_eq!(page["events"][0]["id"], "new");
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    let back = server.api.sse("", told.id.as_deref()).await.unwrap();
    assert_eq!(back.response.status(), 204);
    let first = server.api.sse(&format!("after={before}"), None).await;
    assert_eq!(first.unwrap().response.status(), 410);
    let (status, _) = server
        .api
        .try_get(&format!("/v1/events?after={before}"))
        .await;
    assert_eq!(status, 410);
    server.stop().await;
}

/// The server hears of retention elsewhere late: whoever asks for what there is must not be told that it is gone.
#[tokio::test]
async fn the_earliest_event_is_the_earliest_left_whoever_removed_the_others() {
    let db = TestDb::new().await;
    let client = short_chunks(&db).await;
    let server = Server::start_with(&db.url, SMALL_WINDOW).await;
    write(&server, &client).await;
    remove_all(&client).await;
    server.api.append(&json!({"id": "new", "topic": "a"})).await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["*"], "earliest").await;
    let frame = ws.next().await.unwrap().unwrap();
    assert_eq!(frame["type"], "events", "{frame}");
    assert_eq!(frame["events"][0]["id"], "new");
    let mut sse = server.api.sse("after=earliest", None).await.unwrap();
    let message = sse.next().await.unwrap().unwrap();
    assert_eq!(message.event, "message", "{message:?}");
    let page = server.api.page("earliest", "").await;
    assert_eq!(page["events"][0]["id"], "new");
    server.stop().await;
}
