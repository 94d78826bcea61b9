//! What is no longer there: events that retention removed, ids that were forgotten, a history that was cut.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::sql::store_old_events;
use crate::support::{Server, TestDb};

/// Stores events `old-1` to `old-3` as of three, two and one days ago, each in a chunk of its own, and `new` as of now.
/// Returns their cursors.
async fn four_days(db: &TestDb) -> (Client, Vec<String>) {
    let client = db.connect().await;
    store_old_events(&client).await;
    client
        .batch_execute("INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'new', 'a')")
        .await
        .unwrap();
    let rows = client
        .query(
            "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events WHERE id <> 'now' ORDER BY seq",
            &[],
        )
        .await
        .unwrap();
    (client, rows.iter().map(|row| row.get(0)).collect())
}

async fn retain(client: &Client, keep: &str) -> i32 {
    let row = client
        .query_one(&format!("SELECT tidewire.retain(interval '{keep}')"), &[])
        .await;
    row.unwrap().get(0)
}

fn ids(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|e| e["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_cursor_that_retention_has_overtaken_is_answered_with_the_earliest_usable_one() {
    let db = TestDb::new().await;
    let (client, cursors) = four_days(&db).await;
    assert_eq!(retain(&client, "30 days").await, 0);
    assert_eq!(retain(&client, "36 hours").await, 2);
    let server = Server::start(&db).await;
    let (status, problem) = server
        .api
        .try_get(&format!("/v1/events?after={}", cursors[0]))
        .await;
    assert_eq!(status, StatusCode::GONE);
    assert_eq!(problem["type"], "/problems/cursor-expired");
    let earliest = problem["earliest_cursor"].as_str().unwrap();
    assert_eq!(ids(&server.api.page(earliest, "").await), ["old-3", "new"]);
    assert_eq!(
        ids(&server.api.page("earliest", "").await),
        ["old-3", "new"]
    );
    assert_eq!(
        ids(&server.api.page(&cursors[1], "").await),
        ["old-3", "new"],
        "nothing after this one is gone"
    );

    let mut ws = server.api.ws().await;
    let refused = ws.subscribe("s", &["*"], &cursors[0]).await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("cursor-expired"))
    );
    let mut sse = server.api.sse("topics=*", Some(&cursors[0])).await.unwrap();
    assert_eq!(sse.response.status(), StatusCode::OK);
    let told = sse.next().await.unwrap().unwrap();
    assert_eq!(told.event, "error");
    let problem: Value = serde_json::from_str(&told.data).unwrap();
    assert_eq!(problem["type"], "/problems/cursor-expired");
    assert_eq!(sse.next().await.unwrap(), None);
    let back = server
        .api
        .sse("topics=*", told.id.as_deref())
        .await
        .unwrap();
    assert_eq!(back.response.status(), StatusCode::NO_CONTENT);
    server.stop().await;
}

/// The server reads the newest events at its start: `latest` must not mean where that begins.
#[tokio::test]
async fn latest_at_a_server_that_has_just_started_is_the_end_of_the_log() {
    let db = TestDb::new().await;
    db.connect()
        .await
        .batch_execute(
            "INSERT INTO tidewire.events (tenant, id, topic)
             SELECT 'dev', 'n' || i, 'a' FROM generate_series(1, 5000) AS i",
        )
        .await
        .unwrap();
    let server = Server::start(&db).await;
    let latest = server.api.page("latest", "").await;
    let all = server.api.page("earliest", "").await;
    assert_eq!(all["events"].as_array().unwrap().len(), 100);
    server
        .api
        .append(&json!({"id": "next", "topic": "a"}))
        .await;
    let next = server
        .api
        .page(latest["cursor"].as_str().unwrap(), "&wait=5")
        .await;
    assert_eq!(ids(&next), ["next"]);
    server.stop().await;
}

#[tokio::test]
async fn retention_refuses_a_negative_time_and_forgets_nothing_twice() {
    let db = TestDb::new().await;
    let (client, _) = four_days(&db).await;
    assert!(
        client
            .batch_execute("SELECT tidewire.retain('-1 day')")
            .await
            .is_err()
    );
    assert_eq!(retain(&client, "60 hours").await, 1);
    assert_eq!(retain(&client, "60 hours").await, 0);
    let log = db.log().await;
    assert_eq!(log.len(), 5, "one of these says what was removed");
}

#[tokio::test]
async fn a_new_life_of_the_log_keeps_the_cursors_of_what_it_shares() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start(&db).await;
    let answers = server
        .api
        .append(&json!([{"topic": "a"}, {"topic": "b"}]))
        .await;
    let (shared, lost) = (&answers[0]["cursor"], &answers[1]["cursor"]);
    server.stop().await;
    client
        .batch_execute(
            "SET session_replication_role = replica; DELETE FROM tidewire.events WHERE topic = 'b';
             SET session_replication_role = origin; SELECT tidewire.begin_epoch('test')",
        )
        .await
        .unwrap();
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "c"})).await;
    let page = server.api.page(shared.as_str().unwrap(), "&wait=5").await;
    assert_eq!(page["events"][0]["topic"], "c");
    let (status, problem) = server
        .api
        .try_get(&format!("/v1/events?after={}", lost.as_str().unwrap()))
        .await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("/problems/cursor-unknown"))
    );
    let (status, _) = server
        .api
        .try_append(&json!({"topic": "a", "subject": "s", "expect": lost}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    server.stop().await;
}

/// As after a restore of an older backup behind the same address.
#[tokio::test]
async fn a_running_server_whose_log_is_cut_tells_its_readers() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start(&db).await;
    let kept = server.api.append(&json!({"topic": "kept"})).await;
    let kept = kept[0]["cursor"].as_str().unwrap().to_owned();
    let gone = server
        .api
        .append(&json!([{"topic": "gone"}, {"topic": "gone"}]))
        .await;
    let gone = gone[1]["cursor"].as_str().unwrap().to_owned();
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["*"], &kept).await;
    let mut sse = server
        .api
        .sse(&format!("after={kept}"), None)
        .await
        .unwrap();
    assert_eq!(ws.until("events").await["cursor"], json!(gone));
    assert_eq!(sse.events().await.unwrap().unwrap().1, gone);
    client
        .batch_execute(
            "BEGIN; SET LOCAL session_replication_role = replica;
             DELETE FROM tidewire.idempotency_keys; DELETE FROM tidewire.events WHERE topic = 'gone';
             SELECT setval('tidewire.events_seq', 1); SELECT tidewire.begin_epoch('restored'); COMMIT",
        )
        .await
        .unwrap();
    let told = ws.until("error").await;
    assert_eq!(
        (&told["id"], &told["code"]),
        (&json!("s"), &json!("cursor-unknown"))
    );
    let told = loop {
        let message = sse.next().await.unwrap().unwrap();
        if message.event == "error" {
            break message;
        }
    };
    assert!(told.data.contains("/problems/cursor-unknown"));
    // The log goes on: what is shared is served, and new events arrive.
    server.api.append(&json!({"topic": "after"})).await;
    let page = server.api.page(&kept, "&wait=5").await;
    assert_eq!(page["events"][0]["topic"], "after");
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    let (status, _) = server
        .api
        .try_get(&format!("/v1/events?after={gone}"))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    server.stop().await;
}

#[tokio::test]
async fn ids_are_forgotten_when_they_have_left_the_window_and_not_before() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let append = async |id: &str| -> bool {
        client
            .query_one(
                "SELECT duplicate FROM tidewire.append('a', id => $1)",
                &[&id],
            )
            .await
            .unwrap()
            .get(0)
    };
    let expire = async || -> i32 {
        client
            .query_one("SELECT tidewire.expire_keys()", &[])
            .await
            .unwrap()
            .get(0)
    };
    assert!(!append("old").await && !append("young").await);
    assert_eq!(expire().await, 0);
    client
        .batch_execute(
            "UPDATE tidewire.idempotency_keys SET recorded_at = recorded_at - interval '6 days 23 hours'",
        )
        .await
        .unwrap();
    assert_eq!(expire().await, 0, "within seven days");
    client
        .batch_execute(
            "UPDATE tidewire.idempotency_keys SET recorded_at = recorded_at - interval '2 hours'
              WHERE key = tidewire.idempotency_key('dev', 'old')",
        )
        .await
        .unwrap();
    assert_eq!(expire().await, 1);
    assert!(append("young").await, "still known");
    assert!(!append("old").await, "forgotten");
    client
        .batch_execute("UPDATE tidewire.log SET deduplication_window = '0 seconds'")
        .await
        .unwrap();
    assert_eq!(expire().await, 2, "the window is a setting of the log");
}
