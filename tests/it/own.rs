//! Own commits: they reach readers without a way back through the database, and never before what lies before them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::client::Ws;
use crate::support::{Server, TestDb, eventually};

const SOON: Duration = Duration::from_secs(10);

async fn live(server: &Server) -> Ws {
    let mut ws = server.api.ws().await;
    ws.subscribe("all", &["*"], "latest").await;
    ws.until("live").await;
    ws
}

async fn post(server: &Server, id: &str) {
    server.api.append(&json!({"id": id, "topic": "own"})).await;
}

/// The ids of the next `count` events.
async fn ids(ws: &mut Ws, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let frame = tokio::time::timeout(SOON, ws.until("events"))
            .await
            .unwrap_or_else(|_| panic!("of {count} only {ids:?}"));
        let events = frame["events"].as_array().unwrap().iter();
        ids.extend(events.map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    ids
}

/// From now on every look at the log fails.
const NO_LOOKS: &str = "
    CREATE OR REPLACE FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer)
    LANGUAGE plpgsql AS $$ BEGIN RAISE 'nobody may look'; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn own_commits_reach_readers_without_a_look() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = live(&server).await;
    db.connect().await.batch_execute(NO_LOOKS).await.unwrap();
    let wanted: Vec<String> = (0..20).map(|n| format!("own-{n}")).collect();
    for id in &wanted {
        post(&server, id).await;
    }
    assert_eq!(ids(&mut ws, wanted.len()).await, wanted);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_the_same_whether_it_came_by_itself_or_was_read() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = live(&server).await;
    let event = json!({
        "id": "same", "topic": "own", "subject": "s", "occurred_at": "2025-11-21T08:00:00.123456789Z",
        "gdpr": {"b": 1, "a": 2}, "data": {"z": 1.10, "a": [1e3, "\u{1f30a}"], "z2": null}
    });
    server.api.append(&event).await;
    let live = ws.until("events").await["events"][0].take();
    // Another server has not seen it committed: it reads the log.
    let other = Server::start(&db).await;
    assert_eq!(other.api.page("earliest", "").await["events"][0], live);
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_commit_waits_for_an_open_transaction_before_it() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = live(&server).await;
    let writer = db.connect().await;
    let mut wanted = Vec::new();
    for round in 0..5 {
        let (theirs, own) = (format!("theirs-{round}"), format!("own-{round}"));
        open_with(&writer, &theirs).await;
        post(&server, &own).await;
        is_held(&server, true).await;
        writer.batch_execute("COMMIT").await.unwrap();
        wanted.extend([theirs, own]);
    }
    assert_eq!(ids(&mut ws, wanted.len()).await, wanted);
    server.stop().await;
}

/// A transaction that is rolled back tells nobody: the server has to look.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_releases_the_events_behind_it_before_the_safety_poll() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut ws = live(&server).await;
    let writer = db.connect().await;
    let mut delays = Vec::new();
    for round in 0..5 {
        let own = format!("own-{round}");
        open_with(&writer, "never").await;
        post(&server, &own).await;
        is_held(&server, true).await;
        let began = Instant::now();
        writer.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(ids(&mut ws, 1).await, [own]);
        delays.push(began.elapsed());
    }
    // The poll comes once a second: five times less than a third of that is no luck.
    let longest = delays.iter().max().unwrap();
    assert!(*longest < Duration::from_millis(333), "{delays:?}");
    server.stop().await;
}

/// The log begins another life below a running server: its lanes and its tail must agree on it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_of_the_log_is_noticed_by_those_who_write() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let client = db.connect().await;
    // So many that reading them again takes a while: whoever asks for the latest must not be given the past.
    client
        .batch_execute(
            "INSERT INTO tidewire.events (tenant, topic, data)
             SELECT 'dev', 'before', to_jsonb(repeat('x', 500)) FROM generate_series(1, 18000)",
        )
        .await
        .unwrap();
    let newest =
        "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events ORDER BY seq DESC LIMIT 1";
    let newest: String = client.query_one(newest, &[]).await.unwrap().get(0);
    server
        .api
        .page("latest", &format!("&at_least={newest}"))
        .await;
    client
        .batch_execute("SELECT tidewire.begin_epoch('a test')")
        .await
        .unwrap();
    // Whoever reconnects learns of it.
    client
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'tidewire tail'",
        )
        .await
        .unwrap();
    eventually(SOON, || async {
        let epoch = server.app.hub.identity().known().identity.epoch;
        if epoch == 2 { Ok(()) } else { Err(epoch) }
    })
    .await;
    let mut ws = live(&server).await;
    post(&server, "first").await;
    assert_eq!(ids(&mut ws, 1).await, ["first"]);
    // And then they agree: no event needs another look.
    client.batch_execute(NO_LOOKS).await.unwrap();
    let wanted: Vec<String> = (0..20).map(|n| format!("own-{n}")).collect();
    for id in &wanted {
        post(&server, id).await;
    }
    assert_eq!(ids(&mut ws, wanted.len()).await, wanted);
    server.stop().await;
}

async fn open_with(client: &Client, id: &str) {
    let insert = format!(
        "BEGIN; INSERT INTO tidewire.events (tenant, topic, id) VALUES ('dev', 'theirs', '{id}')"
    );
    client.batch_execute(&insert).await.unwrap();
}

/// Waits until the server says that a transaction holds the watermark back.
async fn is_held(server: &Server, wanted: bool) {
    eventually(SOON, || async {
        let status: Value = server.api.get("/v1/status").await;
        let log = &status["log"];
        let lag = log["newest"].as_i64() > log["watermark"].as_i64();
        if lag == wanted { Ok(()) } else { Err(status) }
    })
    .await;
}

/// At the server that said "stored", by whoever reads there next: without `at_least`, and whatever others write.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_can_be_read_at_once() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let api = server.api.clone();
        writers.spawn(async move {
            for number in 0..40 {
                let id = format!("{writer}-{number}");
                let subject = format!("s-{id}");
                let big = "x".repeat(10_000);
                api.append(&json!({"id": id, "topic": "a", "subject": subject, "data": big}))
                    .await;
                let page = api.page("earliest", &format!("&subjects={subject}")).await;
                assert_eq!(page["events"][0]["id"], id, "{page}");
            }
        });
    }
    writers.join_all().await;
    server.stop().await;
}
