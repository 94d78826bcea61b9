//! Rules at work: to the day, the most exact first, on nobody else's events, and nobody is left in the dark.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::fixture::{all, from};
use super::rules::set;
use crate::support::credentials::admin;
use crate::support::reader::Transport;
use crate::support::token::WITH_TOKENS;
use crate::support::{Api, Server, TestDb, eventually};

/// Stores an event of so many seconds ago.
pub async fn store(client: &Client, tenant: &str, topic: &str, seconds: i32, id: &str) {
    client
        .batch_execute(&format!(
            "SET session_replication_role = replica;
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, data)
             VALUES (clock_timestamp() - make_interval(secs => {seconds}), '{tenant}', '{id}', '{topic}', 's', '1');
             SET session_replication_role = origin"
        ))
        .await
        .unwrap();
}

const DAY: i32 = 86_400;

/// An old event, and its tenant's rule that keeps it no longer.
async fn one_is_due(db: &TestDb) -> Client {
    let client = db.connect().await;
    store(&client, "acme", "a", 3 * DAY, "old").await;
    let rule =
        "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 2)";
    client.batch_execute(rule).await.unwrap();
    client
}

/// Applies rules as a server's upkeep does, beside that of the server, until these are left.
async fn left_in_the_end(client: &Client, ids: &[&str]) {
    eventually(Duration::from_secs(10), || async {
        // The server may be doing it just now.
        let _ = client
            .batch_execute("SELECT tidewire.retain_by_rules()")
            .await;
        empty(client).await;
        let left = kept(client).await;
        if left == ids { Ok(()) } else { Err(left) }
    })
    .await;
}

/// What each rule has removed, and whether it says when.
fn removed(shown: &Value) -> Vec<(&str, i64, bool)> {
    let rules = shown["rules"].as_array().unwrap().iter();
    rules
        .map(|rule| {
            let pattern = rule["pattern"].as_str().unwrap();
            let removed = rule["removed"].as_i64().unwrap();
            (pattern, removed, rule["removed_at"].is_string())
        })
        .collect()
}

/// Without what the log says of what rules have removed, which comes with each round that has.
fn without_told(mut events: Vec<Value>) -> Vec<Value> {
    events.retain(|event| event["topic"] != "tidewire.audit.retention.applied");
    events
}

/// A page after a cursor: status and answer.
async fn ask(api: &Api, cursor: &str) -> (StatusCode, Value) {
    api.try_get(&format!("/v1/events?after={cursor}")).await
}

/// Six events of three tenants, each but two in a chunk of its own; their cursors.
async fn six_days(client: &Client) -> Vec<String> {
    client
        .batch_execute(
            "SELECT public.set_chunk_time_interval('tidewire.events', interval '1 hour')",
        )
        .await
        .unwrap();
    for (tenant, topic, days, id) in [
        ("acme", "a", 9, "acme-9"),
        ("beta", "b", 9, "beta-9"),
        ("acme", "a", 8, "acme-8"),
        ("gamma", "c", 7, "gamma-7"),
        ("acme", "a", 6, "acme-6"),
        ("acme", "a", 1, "acme-1"),
    ] {
        store(client, tenant, topic, days * DAY, id).await;
    }
    cursors(client, "%").await
}

/// The cursors of the events of these tenants.
async fn cursors(client: &Client, tenants: &str) -> Vec<String> {
    let query = "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events WHERE tenant LIKE $1 ORDER BY seq";
    let rows = client.query(query, &[&tenants]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Chunks of the log.
async fn chunks(client: &Client) -> i64 {
    let count = "SELECT count(*) FROM timescaledb_information.chunks";
    client.query_one(count, &[]).await.unwrap().get(0)
}

/// Empties what is due.
async fn empty(client: &Client) -> i64 {
    let mut events = 0;
    loop {
        let batch = "SELECT removed, is_complete FROM tidewire.apply_retention(3)";
        let row = client.query_one(batch, &[]).await.unwrap();
        events += row.get::<_, i64>(0);
        if row.get(1) {
            return events;
        }
    }
}

async fn kept(client: &Client) -> Vec<String> {
    let rows = client
        .query("SELECT id FROM tidewire.events WHERE erased_at IS NULL AND NOT starts_with(topic, 'tidewire.') ORDER BY seq", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_most_exact_rule_counts_to_the_day_and_for_its_tenant_alone() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for (tenant, topic, seconds, id) in [
        ("beta", "a.b", 9 * DAY, "betas"),
        ("acme", "a.b", 3 * DAY + 5, "past its days"),
        ("acme", "a.b.c", 3 * DAY + 5, "kept longer"),
        ("acme", "a.b", 3 * DAY - 60, "within a minute"),
        ("acme", "x", 9 * DAY, "under no rule"),
        ("acme", "tidewire.audit.x", 300 * DAY, "of the log"),
        ("acme", "a.c", 2 * DAY, "of another"),
        ("acme", "a.b", 1, "now"),
    ] {
        store(&client, tenant, topic, seconds, id).await;
    }
    // At once: a server that has one of them applies it.
    let rules = "INSERT INTO tidewire.retention_rules (tenant, pattern, days)
        VALUES ('acme', 'a.*', 1), ('acme', 'a.b', 3), ('acme', 'a.b.c', 10)";
    client.batch_execute(rules).await.unwrap();
    let before = cursors(&client, "acme").await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let left = [
        "betas",
        "kept longer",
        "within a minute",
        "under no rule",
        "now",
    ];
    left_in_the_end(&client, &left).await;
    let own = "SELECT count(*) FROM tidewire.events WHERE id = 'of the log' AND erased_at IS NULL";
    assert_eq!(
        client.query_one(own, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    // In their places, for whoever comes with whichever cursor.
    eventually(Duration::from_secs(1), || async {
        for transport in Transport::ALL {
            let seen = without_told(from(&acme, transport, "earliest").await.events);
            let empty = seen
                .iter()
                .filter(|event| event["erased_at"].is_string())
                .count();
            if empty != 2 {
                return Err(seen);
            }
            let seen: Vec<_> = seen
                .iter()
                .map(|event| event["cursor"].as_str().unwrap())
                .collect();
            assert_eq!(seen, before, "{transport:?}");
        }
        Ok(())
    })
    .await;
    let shown = acme.get("/v1/retention").await;
    let removed = removed(&shown);
    assert_eq!(
        removed,
        [("a.b.c", 0, false), ("a.b", 1, true), ("a.*", 1, true)]
    );
    assert_eq!(empty(&client).await, 0, "once");
    // A rule that changes is applied from the beginning.
    set(&acme, "a.b.c", 2).await;
    left_in_the_end(
        &client,
        &["betas", "within a minute", "under no rule", "now"],
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_chunk_that_nobody_keeps_is_removed_and_only_who_lost_something_is_told() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let cursors = six_days(&client).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let [acme, beta, gamma] = ["acme", "beta", "gamma"].map(|tenant| admin(&server, tenant));
    set(&acme, "*", 5).await;
    let before = chunks(&client).await;
    left_in_the_end(&client, &["beta-9", "gamma-7", "acme-1"]).await;
    assert_eq!(chunks(&client).await, before, "beta keeps the oldest");
    set(&beta, "b", 5).await;
    left_in_the_end(&client, &["gamma-7", "acme-1"]).await;
    // Of beta's the oldest, then that which is empty anyway, up to gamma's.
    eventually(Duration::from_secs(10), || async {
        let _ = client
            .batch_execute("SELECT tidewire.retain_by_rules()")
            .await;
        let left = chunks(&client).await;
        if left == before - 2 {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
    for (api, cursor, status) in [
        (&acme, &cursors[0], StatusCode::GONE),
        (&beta, &cursors[0], StatusCode::GONE),
        (&gamma, &cursors[0], StatusCode::OK),
        (&acme, &cursors[2], StatusCode::OK),
        (&beta, &cursors[1], StatusCode::OK),
    ] {
        let answer = eventually(Duration::from_secs(1), || async {
            let (got, answer) = ask(api, cursor).await;
            if got == status {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await;
        if status == StatusCode::GONE {
            let earliest = answer["earliest_cursor"].as_str().unwrap();
            assert_eq!(ask(api, earliest).await.0, StatusCode::OK);
        }
    }
    // Promised within a second.
    let seen = eventually(Duration::from_secs(1), || async {
        let seen = all(&acme, Transport::Pages).await;
        let is_empty = seen[0]["erased_at"].is_string();
        is_empty.then_some(seen.clone()).ok_or(seen)
    })
    .await;
    assert_eq!(seen[1]["id"], "acme-1");
    assert_eq!(all(&gamma, Transport::Pages).await[0]["id"], "gamma-7");
    server.stop().await;
    // A server that starts later knows it from the beginning.
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    assert_eq!(ask(&acme, &cursors[0]).await.0, StatusCode::GONE);
    assert_eq!(
        without_told(all(&acme, Transport::WsJson).await).len(),
        3,
        "one of these is the log's own"
    );
    server.stop().await;
}

/// With nobody's help.
#[tokio::test]
async fn a_server_applies_rules_by_itself() {
    let db = TestDb::new().await;
    let client = one_is_due(&db).await;
    store(&client, "beta", "a", 3 * DAY, "betas").await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    eventually(Duration::from_secs(10), || async {
        let left = kept(&client).await;
        if left == ["betas"] { Ok(()) } else { Err(left) }
    })
    .await;
    let told = without_told(all(&admin(&server, "acme"), Transport::Pages).await);
    assert_eq!(
        told.last().unwrap()["data"],
        json!({"pattern": "*", "days": 2})
    );
    assert_eq!(
        told.last().unwrap()["source"],
        "postgres",
        "whoever set it, in SQL as well"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_wait_for_nobody_and_nobody_for_them() {
    let db = TestDb::new().await;
    let client = one_is_due(&db).await;
    // A reader of the chunk: it is not removed, and the reader's beside it go on.
    let reader = db.connect().await;
    reader
        .batch_execute("BEGIN; SELECT count(*) FROM tidewire.events")
        .await
        .unwrap();
    let refused = client
        .batch_execute("SELECT tidewire.retain_by_rules()")
        .await
        .unwrap_err();
    let said = refused.as_db_error().unwrap().message().to_owned();
    assert_eq!(crate::support::sql::state_of::<()>(Err(refused)), "55P03");
    let pid: i32 = reader
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    assert!(said.contains(&format!("process {pid}")), "{said}");
    reader.batch_execute("COMMIT").await.unwrap();
    // Two at once: one of them does it.
    let other = db.connect().await;
    other
        .batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1953064034, 1)")
        .await
        .unwrap();
    let row = client
        .query_one(
            "SELECT removed, is_complete FROM tidewire.apply_retention()",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (0, true));
    other.batch_execute("COMMIT").await.unwrap();
    // An open writer: what it may still commit is not passed.
    let writer = db.connect().await;
    writer
        .batch_execute("BEGIN; SELECT tidewire.append('b', tenant => 'acme')")
        .await
        .unwrap();
    assert_eq!(empty(&client).await, 1);
    writer.batch_execute("COMMIT").await.unwrap();
}

/// While the chunk's lock is waited for, somebody commits an event into it that is kept: the chunk stays, and so must the
/// beginning of the tenants whose events were to go with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_meanwhile_keeps_everybodys_beginning() {
    let db = TestDb::new().await;
    let client = one_is_due(&db).await;
    let writer = db.connect().await;
    writer
        .batch_execute(
            "BEGIN; SET LOCAL tidewire.preparing = 'open';
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
                VALUES (clock_timestamp() - interval '3 days', 'zeta', 'slow', 'a')",
        )
        .await
        .unwrap();
    let other = db.connect().await;
    // Long enough for a slow machine: nobody gives up while this test looks.
    other
        .batch_execute("ALTER FUNCTION tidewire.retain_by_rules() SET lock_timeout = '1min'")
        .await
        .unwrap();
    let removing = async move {
        let row = other
            .query_one("SELECT tidewire.retain_by_rules()", &[])
            .await
            .unwrap();
        row.get::<_, bool>(0)
    };
    let committing = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                        AND query LIKE '%retain_by_rules%' AND pid <> pg_backend_pid()";
        eventually(Duration::from_secs(10), || async {
            let count: i64 = client.query_one(waits, &[]).await.unwrap().get(0);
            (count > 0).then_some(()).ok_or(count)
        })
        .await;
        writer.batch_execute("COMMIT").await.unwrap();
    };
    let (was_removed, ()) = tokio::join!(removing, committing);
    assert!(!was_removed);
    let moved = "SELECT count(*) FROM tidewire.retained_tenants";
    let count: i64 = client.query_one(moved, &[]).await.unwrap().get(0);
    assert_eq!(count, 0, "nobody lost anything");
    assert_eq!(kept(&client).await, ["old", "slow"]);
}
