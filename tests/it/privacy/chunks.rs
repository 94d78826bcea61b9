//! Chunks that tenants' rules keep no longer: read beside others, who change what was read, and in nobody's way.

use std::time::Duration;

use tidewire::event::limits::STATEMENT_MAX;
use tokio_postgres::Client;

use super::retention::store;
use crate::support::{Server, TestDb, eventually};

const DAY: i32 = 86_400;
const REMOVE: &str = "SELECT tidewire.retain_by_rules()";

/// Three old events of two tenants, and the rules that keep none of them; with the patience of a slow machine.
async fn due(db: &TestDb) -> Client {
    let client = db.connect().await;
    for (tenant, topic, id) in [("acme", "a", "1"), ("acme", "b", "2"), ("zeta", "a", "3")] {
        store(&client, tenant, topic, 3 * DAY, id).await;
    }
    run(
        &client,
        "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 2), ('acme', 'b', 1), ('zeta', '*', 2);
         ALTER FUNCTION tidewire.retain_by_rules() SET lock_timeout = '1min'",
    )
    .await;
    client
}

async fn run(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap();
}

async fn removes(client: &Client) -> bool {
    client.query_one(REMOVE, &[]).await.unwrap().get(0)
}

/// Until the one that removes the chunk waits for somebody's lock.
async fn until_it_waits(client: &Client) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND query = $1 AND pid <> pg_backend_pid()";
    eventually(Duration::from_secs(10), || async {
        let count: i64 = client.query_one(waits, &[&REMOVE]).await.unwrap().get(0);
        (count > 0).then_some(()).ok_or(count)
    })
    .await;
}

/// What each rule says that it has removed, and what the log says of it.
async fn told(client: &Client) -> Vec<(String, i64, Option<i64>)> {
    let told = "SELECT r.tenant || ' ' || r.pattern, r.removed, (e.data ->> 'events')::bigint FROM tidewire.retention_rules AS r
                  LEFT JOIN tidewire.events AS e ON e.tenant = r.tenant AND e.topic = 'tidewire.audit.retention.applied'
                        AND e.data ->> 'pattern' = r.pattern
                 ORDER BY r.tenant, r.pattern";
    let rows = client.query(told, &[]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

fn one(rule: &str, events: i64) -> (String, i64, Option<i64>) {
    (rule.to_owned(), events, (events > 0).then_some(events))
}

#[tokio::test]
async fn each_rule_says_what_it_has_removed_and_tenants_begin_after_their_last() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let last = "SELECT tenant, max(seq), (array_agg(recorded_at ORDER BY seq DESC))[1] FROM tidewire.events
                 WHERE NOT starts_with(topic, 'tidewire.') GROUP BY tenant ORDER BY tenant";
    let begins =
        "SELECT tenant, retained_seq, retained_at FROM tidewire.retained_tenants ORDER BY tenant";
    let rows = async |query: &str| -> Vec<(String, i64, chrono::DateTime<chrono::Utc>)> {
        let rows = client.query(query, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| (row.get(0), row.get(1), row.get(2));
        rows.iter().map(row).collect()
    };
    let lasts = rows(last).await;
    assert!(removes(&client).await);
    assert_eq!(
        told(&client).await,
        [one("acme *", 1), one("acme b", 1), one("zeta *", 1)]
    );
    assert_eq!(rows(begins).await, lasts);
    assert!(!removes(&client).await, "there is no other");
}

/// An event of the chunk is erased after the chunk was read: it is not counted again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_meanwhile_is_not_counted() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [eraser, remover] = [db.connect().await, db.connect().await];
    run(
        &eraser,
        "BEGIN; SELECT FROM tidewire.erase_subject('zeta', 's')",
    )
    .await;
    let erasing = async {
        until_it_waits(&client).await;
        run(&eraser, "COMMIT").await;
    };
    let (was_removed, ()) = tokio::join!(removes(&remover), erasing);
    assert!(was_removed);
    assert_eq!(
        told(&client).await,
        [one("acme *", 1), one("acme b", 1), one("zeta *", 0)]
    );
}

/// How often the chunk was read while it was removed, with an erasure of this tenant's person that ends meanwhile.
async fn reads(tenant: &str) -> i64 {
    let db = TestDb::new().await;
    let client = due(&db).await;
    store(&client, "other", "a", 0, "4").await;
    let [eraser, remover] = [db.connect().await, db.connect().await];
    run(&remover, "SET track_functions = 'pl'; BEGIN").await;
    let erase = format!("BEGIN; SELECT FROM tidewire.erase_subject('{tenant}', 's')");
    run(&eraser, &erase).await;
    let erasing = async {
        until_it_waits(&client).await;
        run(&eraser, "COMMIT").await;
    };
    let (was_removed, ()) = tokio::join!(removes(&remover), erasing);
    assert!(was_removed, "{tenant}");
    let calls = "SELECT pg_stat_get_xact_function_calls('tidewire.lost_by_rules(regclass, text[])'::regprocedure)";
    let reads = remover.query_one(calls, &[]).await.unwrap().get(0);
    run(&remover, "COMMIT").await;
    reads
}

/// Whoever has their persons erased all day long, and nothing in the chunk, has nobody wait for another look at it.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_elsewhere_has_no_chunk_read_again() {
    assert_eq!(reads("other").await, 1);
    assert_eq!(reads("zeta").await, 2);
}

/// All is known of the chunk, and only then it is taken from its readers.
#[tokio::test(flavor = "multi_thread")]
async fn readers_go_on_until_the_chunk_is_removed() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [holder, remover] = [db.connect().await, db.connect().await];
    run(
        &holder,
        "BEGIN; INSERT INTO tidewire.retained_tenants VALUES ('zeta', 0, now())",
    )
    .await;
    let reading = async {
        until_it_waits(&client).await;
        let read = client.query("SELECT FROM tidewire.events WHERE id = '3'", &[]);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        run(&holder, "ROLLBACK").await;
        read.expect("a reader is held up").unwrap().len()
    };
    let (was_removed, read) = tokio::join!(removes(&remover), reading);
    assert!(was_removed);
    assert_eq!(read, 1);
}

/// Whoever waits for another that removes the oldest chunk looks for the oldest one afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_another_has_removed_is_not_looked_for() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [first, second] = [db.connect().await, db.connect().await];
    run(&first, &format!("BEGIN; {REMOVE}")).await;
    let ending = async {
        until_it_waits(&client).await;
        run(&first, "COMMIT").await;
    };
    let (was_removed, ()) = tokio::join!(removes(&second), ending);
    assert!(!was_removed);
}

/// As with some ten million events: their reading alone takes longer than other statements may.
#[tokio::test]
async fn a_server_takes_its_time_to_read_a_chunk() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let slowly = format!(
        "DO $$ BEGIN EXECUTE regexp_replace(pg_get_functiondef('tidewire.lost_by_rules(regclass, text[])'::regprocedure),
            E'\\nBEGIN\\n', E'\\nBEGIN\\nPERFORM pg_sleep({});\\n'); END $$",
        STATEMENT_MAX.as_secs_f64() + 0.5
    );
    run(&client, &slowly).await;
    let server = Server::start(&db).await;
    eventually(Duration::from_secs(30), || async {
        let there = "SELECT count(*) FROM tidewire.events WHERE topic IN ('a', 'b')";
        let there: i64 = client.query_one(there, &[]).await.unwrap().get(0);
        // Its rules do not empty them before: they are there as a whole or not at all.
        (there == 0).then_some(()).ok_or(there)
    })
    .await;
    server.stop().await;
}
