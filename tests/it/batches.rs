//! What becomes of the neighbours in a batch: of those that are too many for a slow database, and of those of one socket.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// Fifty events a second: of some hundred at once none would be stored within the time that a statement has.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_large_for_a_slow_database_is_stored_in_parts() {
    let db = TestDb::new().await;
    // It is not what this is about.
    let server = Server::start_with(&db.url, &["--breaker-failures", "1000"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let slow = "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON tidewire.events FOR EACH ROW EXECUTE FUNCTION public.slow()";
    db.connect().await.batch_execute(slow).await.unwrap();
    let before = server.app.appender.batch_limit();
    let mut appending = JoinSet::new();
    for n in 0..500 {
        let api = server.api.clone();
        appending.spawn(async move {
            // Heavy enough not to count as one of those that cost as much as one.
            let data = "x".repeat(4_000);
            let event = json!({"topic": "a.b", "id": format!("e-{n}"), "data": data});
            api.try_append(&event).await
        });
    }
    let mut refused = Vec::new();
    while let Some(answer) = appending.join_next().await {
        let (status, body) = answer.unwrap();
        if status != 201 {
            refused.push(body);
        }
    }
    assert!(refused.is_empty(), "{}: {}", refused.len(), refused[0]);
    let after = server.app.appender.batch_limit();
    assert!(after < before / 4, "{before} {after}");
    server.stop().await;
}

/// Three frames in one batch, of which the first has to wait for another transaction.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_on_a_socket_does_not_overtake_what_has_to_wait() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let watcher = db.connect().await;
    let slow = "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON tidewire.events FOR EACH STATEMENT EXECUTE FUNCTION public.slow()";
    watcher.batch_execute(slow).await.unwrap();
    let holder = db.connect().await;
    let hold = "BEGIN; SELECT tidewire.append('x', id => 'first', tenant => 'dev')";
    holder.batch_execute(hold).await.unwrap();
    let are = async |what: &str, count: i64| {
        eventually(PATIENCE, || async {
            let select = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {what}");
            let now: i64 = watcher.query_one(&select, &[]).await.unwrap().get(0);
            (now >= count).then_some(()).ok_or(now)
        })
        .await;
    };
    // Both lanes are at work, so the frames wait together.
    let mut others = JoinSet::new();
    for lane in 1..=2 {
        let api = server.api.clone();
        others.spawn(async move { api.append(&json!({"topic": "a.other"})).await });
        let sleeps = "wait_event = 'PgSleep' AND application_name LIKE '%append%'";
        are(sleeps, lane).await;
    }
    let mut ws = server.api.ws().await;
    for id in ["first", "second", "third"] {
        let events = [json!({"topic": "a.b", "id": id})];
        ws.send(json!({"type": "append", "ref": id, "events": events}))
            .await;
    }
    are(
        "wait_event_type = 'Lock' AND application_name LIKE '%append patiently%'",
        1,
    )
    .await;
    // Time in which the others could have been stored.
    for _ in 0..4 {
        server.api.append(&json!({"topic": "a.other"})).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    for id in ["first", "second", "third"] {
        let answer = ws.until("appended").await;
        assert_eq!(answer["ref"], id, "{answer}");
    }
    let select = "SELECT id FROM tidewire.events WHERE topic = 'a.b' ORDER BY seq";
    let rows = watcher.query(select, &[]).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, ["first", "second", "third"]);
    others.join_all().await;
    server.stop().await;
}
