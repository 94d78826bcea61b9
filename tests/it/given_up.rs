//! Clients that ask for what costs much and hang up at once: the database does no more for them, and nobody waits for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::json;
use tidewire::event::limits::{ADMINISTRATION_LONG, HISTORY_READS};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually};

/// Statements that have come to where somebody is in their way: backend, and since when.
pub type Running = BTreeSet<(i32, DateTime<Utc>)>;

/// More events of a month ago than a window holds, all of one tenant, and a server that nobody is in the way of yet. Its pool
/// has all its connections, so that there is one for whoever should have none.
pub async fn with_history(db: &TestDb) -> (Server, Client) {
    let client = db.connect().await;
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject)
             SELECT clock_timestamp() - interval '30 days', 'loud', n::text, 'a', 's'
               FROM generate_series(1, 2500) AS n;
             SET session_replication_role = origin;
             SELECT tidewire.append('a', tenant => 'quiet')",
        )
        .await
        .unwrap();
    let settings = [WITH_TOKENS, &["--window-events", "2000"]].concat();
    let server = Server::start_with(&db.url, &settings).await;
    let pool = server.app.history.pool();
    let mut opened = Vec::new();
    for _ in 0..pool.status().max_size - 1 {
        opened.push(pool.get().await.unwrap());
    }
    drop(opened);
    (server, client)
}

/// Keeps the chunk of a month ago from everybody.
pub async fn hold(db: &TestDb) -> Client {
    let client = db.connect().await;
    let chunk = "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
                  WHERE hypertable_schema = 'tidewire' AND hypertable_name = 'events' ORDER BY range_start LIMIT 1";
    let chunk: String = client.query_one(chunk, &[]).await.unwrap().get(0);
    let lock = format!("BEGIN; LOCK TABLE {chunk} IN ACCESS EXCLUSIVE MODE");
    client.batch_execute(&lock).await.unwrap();
    client
}

pub async fn look(client: &Client, word: &str) -> Running {
    let running = "SELECT pid, query_start FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'tidewire history' AND state = 'active'
                      AND wait_event_type = 'Lock' AND strpos(query, $1) > 0";
    let rows = client.query(running, &[&word]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Those that ran at one time: between two looks.
async fn at_once(client: &Client, word: &str) -> usize {
    let before = look(client, word).await;
    before.intersection(&look(client, word).await).count()
}

/// Somebody else's look into history.
async fn read_another(api: &Api, client: &Client) -> Duration {
    let since = r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '5 minutes', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
    let since: String = client.query_one(since, &[]).await.unwrap().get(0);
    let began = Instant::now();
    let page = api.get(&format!("/v1/events?since={since}&limit=1")).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "{page}");
    began.elapsed()
}

/// Asks again and again, and hangs up as soon as the database is at work for it. `word` stands in the statement.
async fn ask_and_hang_up(method: &Method, path: &str, word: &str, places: usize) {
    let db = TestDb::new().await;
    let (server, client) = with_history(&db).await;
    let loud = server.api.with_token(&token("loud"));
    let quiet = server.api.with_token(&token("quiet"));
    read_another(&quiet, &client).await;
    let open = hold(&db).await;
    let mut seen = Running::new();
    for round in 1..=12 {
        // No two are equal: those would be read once.
        let path = path.replace("{n}", &round.to_string());
        let mut asking = JoinSet::new();
        let request = loud.request(method.clone(), &path);
        asking.spawn(async move { request.send().await.map(|answer| answer.status()) });
        eventually(Duration::from_secs(10), || async {
            let now = look(&client, word).await;
            let busy = at_once(&client, word).await;
            assert!(busy <= places, "{busy} at once");
            now.difference(&seen).next().map(|_| ()).ok_or(now.clone())
        })
        .await;
        seen.extend(look(&client, word).await);
        asking.shutdown().await;
        let took = read_another(&quiet, &client).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    eventually(Duration::from_secs(2), || async {
        let left = look(&client, word).await;
        left.is_empty().then_some(()).ok_or(left)
    })
    .await;
    open.batch_execute("ROLLBACK").await.unwrap();
    // All places are free again, and what was given up has left nothing half done.
    let (status, answer) = loud.try_get("/v1/subjects/s?limit=1").await;
    assert_eq!(status, 200, "{answer}");
    let erased = loud.request(Method::DELETE, "/v1/subjects/s").send().await;
    assert_eq!(erased.unwrap().status(), 200);
    let counted =
        "SELECT count(*) FROM tidewire.events WHERE tenant = 'loud' AND erased_at IS NOT NULL";
    let counted: i64 = client.query_one(counted, &[]).await.unwrap().get(0);
    assert_eq!(counted, 2_500);
    server
        .api
        .with_token(&token("loud"))
        .append(&json!({"topic": "a"}))
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_waits_for_end_in_the_database() {
    let path = "/v1/events?after=earliest&limit={n}";
    ask_and_hang_up(&Method::GET, path, "FROM tidewire.events", HISTORY_READS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subjects_summary_that_nobody_waits_for_ends_in_the_database() {
    let path = "/v1/subjects/s?limit={n}";
    ask_and_hang_up(&Method::GET, path, "SELECT count(*)", ADMINISTRATION_LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_nobody_waits_for_ends_in_the_database() {
    let path = "/v1/subjects/s";
    ask_and_hang_up(&Method::DELETE, path, "erase_subject", ADMINISTRATION_LONG).await;
}
