//! Writers never wait for each other, not even for the first of a new chunk.

use std::time::Duration;

use serde_json::json;

use crate::support::{Server, TestDb};

#[tokio::test]
async fn the_first_writer_of_a_log_that_stays_open_holds_up_nobody() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let first = db.connect().await;
    first
        .batch_execute("BEGIN; SELECT tidewire.append('first.of.all')")
        .await
        .unwrap();
    let event = json!({"topic": "second.of.all"});
    let stored = tokio::time::timeout(Duration::from_secs(5), server.api.append(&event)).await;
    assert!(stored.is_ok(), "the second writer waits for the first");
    first.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn chunks_are_made_ahead_and_nothing_of_it_is_seen() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let chunks =
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_schema = 'tidewire'";
    let count: i64 = client.query_one(chunks, &[]).await.unwrap().get(0);
    assert_eq!(count, 2, "the present one and the next");
    let again: i32 = client
        .query_one("SELECT tidewire.prepare_chunks()", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(again, 0);
    assert!(db.log().await.is_empty());
    let keys = "SELECT count(*) FROM tidewire.idempotency_keys";
    assert_eq!(
        client.query_one(keys, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
}
