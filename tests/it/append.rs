//! What a writer can rely on.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Server, TestDb};

#[tokio::test]
async fn a_retry_stores_nothing_twice() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let event = json!({"id": "one", "topic": "deal.won", "data": {"n": 1, "m": [1, 2]}});
    let first = server.api.append(&event).await;
    let again = server
        .api
        .append(&json!({"id": "one", "topic": "deal.won", "data": {"m": [1, 2], "n": 1.0}}))
        .await;
    assert_eq!(
        (&first[0]["cursor"], first[0]["duplicate"].as_bool()),
        (&again[0]["cursor"], Some(false))
    );
    assert_eq!(again[0]["duplicate"], true);
    let (status, problem) = server
        .api
        .try_append(&json!({"id": "one", "topic": "deal.lost"}))
        .await;
    assert_eq!(
        (status, &problem["type"]),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!("/problems/idempotency-conflict")
        )
    );
    assert_eq!(db.log().await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn an_array_is_stored_whole_or_not_at_all() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server
        .api
        .append(&json!({"id": "taken", "topic": "a", "data": 1}))
        .await;
    let (status, problem) = server
        .api
        .try_append(&json!([{"id": "new", "topic": "a"}, {"id": "taken", "topic": "a", "data": 2}]))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["errors"][0]["index"], 1);
    let ids: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["taken"]);
    server.stop().await;
}
