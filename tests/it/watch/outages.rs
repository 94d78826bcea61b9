//! Signs that cannot be read, and time in which nobody could give any.

use serde_json::json;

use super::fixture::{PATIENCE, beat, looks_for, start, told, until_told, until_watched, watch};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Proxy, Server, TestDb, eventually};

/// Another tenant's transaction stays open: nobody whose events wait behind it is said to have stalled, and nobody who is silent
/// is kept from being told of.
#[tokio::test]
async fn an_open_writer_causes_no_alarm_and_holds_none_back() {
    let (db, server, acme) = start().await;
    let (client, writer) = (db.connect().await, db.connect().await);
    watch(&acme, "beats", &["agent.heartbeat.*"], 2).await;
    beat(&acme, &["alive", "silent"]).await;
    until_watched(&client, 2).await;
    writer
        .batch_execute("BEGIN; SELECT tidewire.append('a.held', tenant => 'beta')")
        .await
        .unwrap();
    let mut beats = 0;
    // Whoever is silent is told of while the writer is open; much longer than anybody may be.
    while told(&client, "acme", "silent").await.is_empty() || beats < 25 {
        beat(&acme, &["alive"]).await;
        looks_for(&client, 0.2).await;
        beats += 1;
    }
    let seen = "SELECT clock_timestamp() - last_seen_at > interval '4 seconds' FROM tidewire.watched WHERE subject = 'alive'";
    let is_held: bool = client.query_one(seen, &[]).await.unwrap().get(0);
    assert!(is_held, "what readers do not have yet was not read");
    assert!(told(&client, "acme", "alive").await.is_empty());
    writer.batch_execute("COMMIT").await.unwrap();
    until_told(&client, "alive", &["stalled"]).await;
    server.stop().await;
}

/// Who could not write because the database was away has as much time left as before.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_silent_while_the_database_is_away() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 3).await;
    for hold in [false, true] {
        let name = if hold { "held" } else { "cut" };
        beat(&acme, &[name]).await;
        let known = "SELECT count(*) FROM tidewire.watched WHERE subject = $1";
        eventually(PATIENCE, || async {
            let row = client.query_one(known, &[&name]).await.unwrap();
            (row.get::<_, i64>(0) == 1).then_some(()).ok_or("not known")
        })
        .await;
        if hold {
            proxy.hold();
        } else {
            proxy.cut();
        }
        let away = "SELECT clock_timestamp() - last_seen_at > interval '6 seconds' FROM tidewire.watched WHERE subject = $1";
        eventually(PATIENCE, || async {
            let row = client.query_one(away, &[&name]).await.unwrap();
            row.get::<_, bool>(0).then_some(()).ok_or("not yet")
        })
        .await;
        if hold {
            // What was held is silent for good.
            proxy.cut();
        }
        proxy.restore();
        looks_for(&client, 0.3).await;
        assert!(told(&client, "acme", name).await.is_empty(), "{name}");
        // And it is told of when what it had left is over.
        until_told(&client, name, &["stalled"]).await;
    }
    let blind = "SELECT blind_ms >= 6000 FROM tidewire.watch_clock";
    assert!(
        client
            .query_one(blind, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    server.stop().await;
}

/// A transaction that a server has left with a lock keeps the watch from looking, and that is nobody's silence either.
#[tokio::test]
async fn nobody_is_silent_while_the_watch_is_kept_from_looking() {
    let (db, server, acme) = start().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    watch(&acme, "beats", &["agent.heartbeat.*"], 3).await;
    beat(&acme, &["a"]).await;
    until_watched(&client, 1).await;
    holder
        .batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1953064041, 0)")
        .await
        .unwrap();
    let away =
        "SELECT clock_timestamp() - last_seen_at > interval '8 seconds' FROM tidewire.watched";
    eventually(PATIENCE, || async {
        let row = client.query_one(away, &[]).await.unwrap();
        row.get::<_, bool>(0).then_some(()).ok_or("not yet")
    })
    .await;
    holder.batch_execute("COMMIT").await.unwrap();
    looks_for(&client, 0.3).await;
    assert!(told(&client, "acme", "a").await.is_empty());
    until_told(&client, "a", &["stalled"]).await;
    acme.append(&json!({"topic": "agent.heartbeat.ok", "subject": "a"}))
        .await;
    until_told(&client, "a", &["stalled", "recovered"]).await;
    server.stop().await;
}
