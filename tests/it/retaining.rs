//! Retention beside others: whoever reads or writes for long is waited for, by nobody but retention itself.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use crate::support::sql::{state_of, store_old_events};
use crate::support::{Process, Server, TestDb, eventually};

/// How long anybody may be held up.
const PROMPT: Duration = Duration::from_secs(2);

/// Events of three, two and one days ago, each in a chunk of its own.
async fn three_days(db: &TestDb) -> Client {
    let client = db.connect().await;
    store_old_events(&client).await;
    client
}

/// A transaction that reads the log and stays open, as `pg_dump` does.
async fn reader(db: &TestDb, of: &str) -> (Client, i32) {
    let reader = db.connect().await;
    let open = format!("BEGIN; SELECT count(*) FROM tidewire.events WHERE {of}");
    reader.batch_execute(&open).await.unwrap();
    let pid = reader.query_one("SELECT pg_backend_pid()", &[]).await;
    (reader, pid.unwrap().get(0))
}

fn retain(client: Client) -> JoinHandle<Result<i32, Error>> {
    #[expect(clippy::disallowed_methods, reason = "joined by the test")]
    tokio::spawn(async move {
        let removed = client
            .query_one("SELECT tidewire.retain('36 hours')", &[])
            .await?;
        Ok(removed.get(0))
    })
}

async fn ids(db: &TestDb) -> Vec<String> {
    db.log().await.into_iter().map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_beside_a_long_reader_stops_nobody() {
    let db = TestDb::new().await;
    let client = three_days(&db).await;
    let server = Server::start(&db).await;
    let (dump, pid) = reader(&db, "true").await;
    let retaining = retain(db.connect().await);
    let mut slowest = Duration::ZERO;
    let mut is_over = false;
    // Once more after it has given up.
    while !is_over {
        is_over = retaining.is_finished();
        let began = Instant::now();
        let written = client.batch_execute("SELECT tidewire.append('sql')");
        let written = tokio::time::timeout(PROMPT, written).await;
        written.expect("an application writes").unwrap();
        let cursor = server.api.append(&json!({"topic": "free"})).await[0]["cursor"].clone();
        let path = format!(
            "/v1/events?after=latest&at_least={}",
            cursor.as_str().unwrap()
        );
        let (status, problem) = server.api.try_get(&path).await;
        assert_eq!(status, 200, "{problem}");
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < PROMPT, "{slowest:?}");
    let refused = retaining.await.unwrap().unwrap_err();
    let said = refused.as_db_error().unwrap().message();
    assert!(said.contains(&format!("process {pid}")), "{said}");
    assert!(ids(&db).await.contains(&"old-1".to_owned()));
    dump.batch_execute("COMMIT").await.unwrap();
    assert_eq!(retain(db.connect().await).await.unwrap().unwrap(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_what_lies_before_what_somebody_reads() {
    let db = TestDb::new().await;
    let client = three_days(&db).await;
    let of = "recorded_at BETWEEN now() - interval '49 hours' AND now() - interval '47 hours'";
    let (_reader, _) = reader(&db, of).await;
    assert_eq!(retain(db.connect().await).await.unwrap().unwrap(), 1);
    let row = client
        .query_one(
            "SELECT retained_seq < (SELECT min(seq) FROM tidewire.events WHERE id = 'old-2'), retained_seq > 0
               FROM tidewire.log",
            &[],
        )
        .await
        .unwrap();
    let (is_before, has_moved): (bool, bool) = (row.get(0), row.get(1));
    assert!(is_before && has_moved);
    // And what the log says of it.
    let left = ids(&db).await;
    assert_eq!(
        (&left[..3], left.len()),
        (&["now", "old-2", "old-3"].map(str::to_owned)[..], 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_retention_is_held_up_says_by_whom() {
    let db = TestDb::new().await;
    three_days(&db).await;
    let (_reader, pid) = reader(&db, "true").await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["--retention-days", "1"];
    let file = log.reopen().unwrap();
    let server = Process::start_logging(&db.url, &arguments, file).await;
    eventually(Duration::from_secs(10), || async {
        let mut text = String::new();
        log.reopen().unwrap().read_to_string(&mut text).unwrap();
        let said = text.lines().any(|line| {
            line.contains("WARN") && line.contains("retention") && line.contains(&pid.to_string())
        });
        if said { Ok(()) } else { Err(text) }
    })
    .await;
    server.kill().await;
}

/// The row stands in for one of a transaction that has been open for longer than what is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_commits_while_retention_waits_is_not_lost_in_silence() {
    let db = TestDb::new().await;
    let client = three_days(&db).await;
    let writer = db.connect().await;
    writer
        .batch_execute(
            "BEGIN; SET LOCAL tidewire.preparing = 'open';
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
                VALUES (clock_timestamp() - interval '3 days', 'dev', 'slow', 'a')",
        )
        .await
        .unwrap();
    let retaining = retain(db.connect().await);
    let waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND query LIKE '%retain%' AND pid <> pg_backend_pid()";
    while client.query(waits, &[]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    writer.batch_execute("COMMIT").await.unwrap();
    // Whether it has waited long enough or not, nothing may be gone that no cursor is told of.
    let _ = retaining.await.unwrap();
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM tidewire.events WHERE id = 'slow'),
                    (SELECT retained_seq FROM tidewire.log) >= (SELECT seq FROM tidewire.idempotency_keys
                      WHERE key = tidewire.idempotency_key('dev', 'slow'))",
            &[],
        )
        .await
        .unwrap();
    let (is_there, is_said): (bool, bool) = (row.get(0), row.get(1));
    assert!(is_there || is_said, "gone, and no cursor says so");
}

#[tokio::test]
async fn retention_that_could_not_see_what_was_committed_meanwhile_is_refused() {
    let db = TestDb::new().await;
    let client = three_days(&db).await;
    let by_default = "SET default_transaction_isolation = 'repeatable read'";
    client.batch_execute(by_default).await.unwrap();
    assert_eq!(state_of(retain(client).await.unwrap()), "TW400");
}

/// Two at once would each read places that the other is about to remove.
#[tokio::test(flavor = "multi_thread")]
async fn retention_beside_another_gives_way() {
    let db = TestDb::new().await;
    let client = three_days(&db).await;
    let other = "BEGIN; SELECT tidewire.retain_oldest('60 hours')";
    client.batch_execute(other).await.unwrap();
    let second = retain(db.connect().await).await.unwrap();
    assert_eq!(state_of(second), "55P03");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(retain(db.connect().await).await.unwrap().unwrap(), 1);
}
