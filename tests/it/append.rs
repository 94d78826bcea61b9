//! What a writer can rely on.

use reqwest::StatusCode;
use serde_json::{Value, json};

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

#[tokio::test]
async fn every_conflict_is_named_by_its_place_in_the_request() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server
        .api
        .append(&json!([{"id": "p", "topic": "a"}, {"id": "q", "topic": "a"}]))
        .await;
    let request = json!([
        {"id": "n", "topic": "a"}, {"id": "n", "topic": "a"}, {"id": "q", "topic": "b"}, {"id": "m", "topic": "a"},
        {"id": "p", "topic": "b"}, {"id": "q", "topic": "b"}
    ]);
    let (status, problem) = server.api.try_append(&request).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["type"], "/problems/idempotency-conflict");
    let named: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["index"].as_u64().unwrap())
        .collect();
    assert_eq!(named, [2, 4, 5], "{problem}");
    assert_eq!(db.log().await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn repeats_within_a_request_are_compared_as_values_and_share_their_firsts_fate() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let send = async |kind: &'static str, body: &'static str| {
        let request = server
            .api
            .request(reqwest::Method::POST, "/v1/events")
            .header("content-type", kind)
            .body(body);
        request.send().await.unwrap()
    };
    let same = r#"[{"id":"v","topic":"a","data":{"x":1,"y":2}},{"id":"v","topic":"a","data":{"y":2.0,"x":1}}]"#;
    let answer = send("application/json", same).await;
    assert_eq!(answer.status(), 201);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["events"][0]["duplicate"], false, "{answer}");
    assert_eq!(answer["events"][1]["duplicate"], true, "{answer}");
    let conflicts = "{\"id\":\"v\",\"topic\":\"b\"}\n{\"id\":\"v\",\"topic\":\"b\"}\n";
    let answer = send("application/x-ndjson", conflicts).await;
    let text = answer.text().await.unwrap();
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        assert!(line.contains("/problems/idempotency-conflict"), "{line}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_leap_second_beyond_the_last_year_is_refused_by_index_and_field() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let leap = json!([{"topic": "a", "occurred_at": "2016-12-31T23:59:60.5Z"}, {"topic": "a", "occurred_at": "9999-12-31T23:59:60Z"}]);
    let (status, problem) = server.api.try_append(&leap).await;
    assert_eq!(status, 422);
    assert_eq!(problem["errors"][0]["index"], 1, "{problem}");
    assert_eq!(problem["errors"][0]["field"], "occurred_at", "{problem}");
    server.api.append(&leap[0]).await;
    let page = server.api.page("earliest", "").await;
    assert_eq!(page["events"][0]["occurred_at"], "2017-01-01T00:00:00.500Z");
    server.stop().await;
}
