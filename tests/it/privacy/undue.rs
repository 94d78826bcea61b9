//! Strangers who take the numbers of the log's advisory locks: retention that does not happen for their sake is not said to be done.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::batches::warnings;
use super::retention::store;
use crate::support::sql::state_of;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Server, TestDb, eventually};

const DAY: i32 = 86_400;
const APPLY: &str = "SELECT tidewire.apply_retention()";
const REMOVE: &str = "SELECT tidewire.retain_by_rules()";

/// Two tenants with an event that is due, and a login that may read its own tenant's events and no more, with its process.
async fn strange(db: &TestDb) -> (Client, Client, i32) {
    let client = db.connect().await;
    for tenant in ["a", "b"] {
        store(&client, tenant, "x", 3 * DAY, tenant).await;
        let rule = format!(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('{tenant}', '*', 2)"
        );
        client.batch_execute(&rule).await.unwrap();
    }
    let role = db.login("tidewire_analyst").await;
    let stranger = db.connect_as(&role, &role).await;
    let pid = "SELECT pg_backend_pid()";
    let pid = stranger.query_one(pid, &[]).await.unwrap().get(0);
    (client, stranger, pid)
}

/// A call of a round that began then.
async fn call(client: &Client, round_at: DateTime<Utc>) -> (i64, Option<bool>) {
    let call = "SELECT removed, is_complete FROM tidewire.apply_retention(5000, $1)";
    let row = client.query_one(call, &[&round_at]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn now(client: &Client) -> DateTime<Utc> {
    let now = "SELECT clock_timestamp()";
    client.query_one(now, &[]).await.unwrap().get(0)
}

async fn run(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_takes_the_lock_of_retention_is_named_and_nothing_is_complete() {
    let db = TestDb::new().await;
    let (client, stranger, pid) = strange(&db).await;
    for lock in ["lock", "lock_shared"] {
        run(
            &stranger,
            &format!("SELECT pg_advisory_{lock}(1953064034, 1)"),
        )
        .await;
        assert_eq!(call(&client, now(&client).await).await, (0, None), "{lock}");
        let said = warnings(&db, APPLY).await;
        let names = format!("retention of all tenants is held up by process {pid} (");
        assert!(said.len() == 1 && said[0].starts_with(&names), "{said:?}");
        run(&stranger, "SELECT pg_advisory_unlock_all()").await;
    }
    assert_eq!(call(&client, now(&client).await).await, (2, Some(true)));
}

/// Once a round, so that it costs nobody else their batches.
#[tokio::test]
async fn a_stranger_who_takes_a_tenants_lock_is_named_and_the_others_have_their_turn() {
    let db = TestDb::new().await;
    let (client, stranger, pid) = strange(&db).await;
    run(
        &stranger,
        "SELECT pg_advisory_lock(1953064038, hashtext('a'))",
    )
    .await;
    let said = warnings(&db, &format!("BEGIN; {APPLY}; ROLLBACK")).await;
    let names = format!("retention of tenant a is held up by process {pid} (");
    assert!(said.len() == 1 && said[0].starts_with(&names), "{said:?}");
    let round = now(&client).await;
    assert_eq!(call(&client, round).await, (1, None));
    assert_eq!(call(&client, round).await, (0, Some(true)));
    assert_eq!(call(&client, now(&client).await).await, (0, None));
    // As ever: whoever may change rules is at the log's work.
    run(&stranger, "SELECT pg_advisory_unlock_all()").await;
    let setter = db.connect().await;
    run(
        &setter,
        "BEGIN; SELECT pg_advisory_xact_lock(1953064038, hashtext('a'))",
    )
    .await;
    assert_eq!(call(&client, now(&client).await).await, (0, Some(true)));
    run(&setter, "ROLLBACK").await;
    assert_eq!(call(&client, now(&client).await).await, (1, Some(true)));
}

#[tokio::test]
async fn a_stranger_who_keeps_the_oldest_chunk_is_named() {
    let db = TestDb::new().await;
    let (client, stranger, pid) = strange(&db).await;
    for key in [0, 1] {
        run(
            &stranger,
            &format!("SELECT pg_advisory_lock(1953064034, {key})"),
        )
        .await;
        let refused = client.batch_execute(REMOVE).await.unwrap_err();
        let said = refused.as_db_error().unwrap().message().to_owned();
        assert!(
            said.contains(&format!("held up by process {pid} (")),
            "{said}"
        );
        assert_eq!(state_of::<()>(Err(refused)), "55P03");
        run(&stranger, "SELECT pg_advisory_unlock_all()").await;
    }
    assert!(
        client
            .query_one(REMOVE, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
}

/// Also those of a server: who cannot know its log any more is told why.
#[tokio::test]
async fn status_names_who_holds_the_logs_locks() {
    let db = TestDb::new().await;
    let (_client, stranger, pid) = strange(&db).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token::token("acme"));
    let said = async || {
        let status = api.get("/v1/status").await;
        let issues = status["issues"].as_array().unwrap().clone();
        let mut named = issues.iter().filter(|issue| issue["code"] == "locks-held");
        named
            .next()
            .map(|issue| issue["cause"].as_str().unwrap().to_owned())
    };
    assert_eq!(said().await, None, "the server's own are not meant");
    for (lock, purpose) in [
        ("1953064034, 2", "the log's epochs"),
        (
            "1953064038, hashtext('acme')",
            "a tenant's rules of retention",
        ),
        ("1953064041, 0", "watches"),
    ] {
        eventually(Duration::from_secs(10), || async {
            // The server may have it just now.
            let took = format!("SELECT pg_try_advisory_lock({lock})");
            let took: bool = stranger.query_one(&took, &[]).await.unwrap().get(0);
            took.then_some(()).ok_or(lock)
        })
        .await;
        let named = said().await.unwrap_or_default();
        let expected = format!("process {pid} holds that of {purpose}");
        assert!(named.ends_with(&expected), "{named}");
        run(&stranger, "SELECT pg_advisory_unlock_all()").await;
    }
    assert_eq!(said().await, None);
    server.stop().await;
}
