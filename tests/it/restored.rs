//! A dump that is restored is another history, also where the cluster stays the same.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::dump::{dump, restore};
use crate::support::{Server, TestDb};

/// A log with the event `kept`, dumped, and then with three events more. Returns the dump and the cursors of `kept` and of
/// the newest event.
async fn dumped(db: &TestDb) -> (TempDir, PathBuf, [String; 2]) {
    let server = Server::start(db).await;
    let cursor = |answers: Vec<Value>| answers[0]["cursor"].as_str().unwrap().to_owned();
    let kept = cursor(
        server
            .api
            .append(&json!({"id": "kept", "topic": "a"}))
            .await,
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    dump(db, &file).await;
    let mut lost = String::new();
    for _ in 0..3 {
        lost = cursor(server.api.append(&json!({"topic": "lost"})).await);
    }
    server.stop().await;
    (folder, file, [kept, lost])
}

/// Writes as many events as were lost and two more; cursors of the lost ones must not be taken for places among them.
async fn judge(db: &TestDb, [kept, lost]: [String; 2]) {
    let server = Server::start(db).await;
    for number in 0..5 {
        let event = json!({"id": format!("new-{number}"), "topic": "a"});
        server.api.append(&event).await;
    }
    let (status, problem) = server
        .api
        .try_get(&format!("/v1/events?after={lost}"))
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert_eq!(problem["type"], "/problems/cursor-unknown");
    let page = server.api.page(&kept, "").await;
    let ids: Vec<_> = page["events"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 5, "what both lives share is a place in both");
    assert_eq!(ids[0]["id"], "new-0");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_under_the_same_name_begins_a_new_life() {
    let db = TestDb::new().await;
    let (_folder, file, cursors) = dumped(&db).await;
    db.empty_again().await;
    restore(&file, &db, &[]).await;
    judge(&db, cursors).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_into_another_database_of_the_cluster_begins_a_new_life() {
    let db = TestDb::new().await;
    let (_folder, file, cursors) = dumped(&db).await;
    let other = TestDb::empty().await;
    restore(&file, &other, &[]).await;
    judge(&other, cursors).await;
}

/// What a restore may leave out, the next start makes good: what the dump says of applied definitions is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_privileges_has_them_after_the_next_start() {
    let db = TestDb::new().await;
    let (_folder, file, _) = dumped(&db).await;
    let other = TestDb::empty().await;
    restore(&file, &other, &["--no-privileges"]).await;
    let client = other.connect().await;
    let may = "SELECT has_table_privilege('tidewire_analyst', 'tidewire.my_events', 'SELECT')";
    assert!(!client.query_one(may, &[]).await.unwrap().get::<_, bool>(0));
    Server::start(&other).await.stop().await;
    assert!(client.query_one(may, &[]).await.unwrap().get::<_, bool>(0));
}

/// `CREATE DATABASE … TEMPLATE` keeps every oid but the database's.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_begins_a_life_of_its_own() {
    let db = TestDb::new().await;
    let (_folder, _, [_, lost]) = dumped(&db).await;
    let copy = TestDb::copy_of(&db).await;
    let server = Server::start(&copy).await;
    let newer = server.api.append(&json!({"topic": "copied"})).await;
    let newer = newer[0]["cursor"].as_str().unwrap();
    server.stop().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "a"})).await;
    let (status, _) = server
        .api
        .try_get(&format!("/v1/events?after={newer}"))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let page = server.api.page(&lost, "").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    server.stop().await;
}
