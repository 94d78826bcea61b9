//! Several servers: one looks, and another goes on where it was.

use serde_json::json;

use super::fixture::{PATIENCE, beat, looks_for, start, told, until_told, until_watched, watch};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Process, Server, TestDb, eventually};

async fn is_active(api: &Api) -> bool {
    let status = api.get("/v1/status").await;
    status["consumers"][0]["is_active"] == json!(true)
}

#[tokio::test]
async fn two_servers_tell_of_a_spell_once() {
    let (db, one, acme) = start().await;
    let other = Server::start_with(&db.url, WITH_TOKENS).await;
    let at_other = other.api.with_token(&token("acme"));
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    let names: Vec<String> = (0..50).map(|n| format!("a-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    beat(&acme, &names).await;
    for name in &names {
        until_told(&client, name, &["stalled"]).await;
    }
    beat(&at_other, &names).await;
    for name in &names {
        until_told(&client, name, &["stalled", "recovered", "stalled"]).await;
    }
    looks_for(&client, 2.0).await;
    for name in &names {
        assert_eq!(
            told(&client, "acme", name).await,
            ["stalled", "recovered", "stalled"]
        );
    }
    assert!(is_active(&acme).await ^ is_active(&at_other).await);
    let standby = if is_active(&acme).await {
        &at_other
    } else {
        &acme
    };
    let status = standby.get("/v1/status").await;
    assert_eq!(
        status["consumers"],
        json!([{"name": "watch", "is_active": false, "is_paused": false}])
    );
    // One that stops in order hands over as well.
    one.stop().await;
    eventually(PATIENCE, || async {
        is_active(&at_other)
            .await
            .then_some(())
            .ok_or("nobody looks")
    })
    .await;
    beat(&at_other, &["later"]).await;
    until_told(&client, "later", &["stalled"]).await;
    other.stop().await;
}

/// Where a server stands that has found out whom to tell of: its step waits for the row, and meanwhile the other has looked whether
/// it is its turn. Nobody else must have decided the same by then.
#[tokio::test]
async fn a_server_that_is_about_to_tell_is_alone() {
    let (db, one, acme) = start().await;
    let other = Server::start_with(&db.url, WITH_TOKENS).await;
    let (client, holder) = (db.connect().await, db.connect().await);
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    beat(&acme, &["a"]).await;
    until_watched(&client, 1).await;
    for spells in 0..3 {
        let mut wanted = vec!["stalled"];
        wanted.extend(["recovered", "stalled"].repeat(spells));
        let hold = "BEGIN; SELECT FROM tidewire.watched FOR UPDATE";
        holder.batch_execute(hold).await.unwrap();
        if spells > 0 {
            beat(&acme, &["a"]).await;
        }
        let at_the_row = "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity WHERE datname = current_database()
            AND application_name = 'tidewire watch' AND wait_event_type = 'Lock'";
        let since = eventually(PATIENCE, || async {
            let since: String = client.query_one(at_the_row, &[]).await.unwrap().get(0);
            Some(since.clone())
                .filter(|since| !since.is_empty())
                .ok_or(since)
        })
        .await;
        // The other looks every second.
        let the_other = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tidewire watch'
            AND (wait_event_type = 'Lock' OR query_start > $1::text::timestamptz + interval '1 second')";
        eventually(PATIENCE, || async {
            let count: i64 = client.query_one(the_other, &[&since]).await.unwrap().get(0);
            (count >= 2).then_some(()).ok_or(count)
        })
        .await;
        holder.batch_execute("COMMIT").await.unwrap();
        until_told(&client, "a", &wanted).await;
    }
    looks_for(&client, 2.0).await;
    let told = told(&client, "acme", "a").await;
    assert_eq!(told.len(), 5, "{told:?}");
    one.stop().await;
    other.stop().await;
}

/// Even if the servers' own locks did not keep them apart: of two that say the same of a spell, one is heard.
#[tokio::test]
async fn of_two_who_judge_the_same_spell_one_is_heard() {
    let (db, server, acme) = start().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 600).await;
    beat(&acme, &["a"]).await;
    let client = db.connect().await;
    until_watched(&client, 1).await;
    let judge = |verdict: &str| {
        format!(
            "SELECT tidewire.judge_watched('{{acme}}', '{{beats}}', '{{a}}', '{{{verdict}}}', ARRAY[NULL::timestamptz])"
        )
    };
    for (verdict, so_far) in [
        ("stalls", vec!["stalled"]),
        ("recovers", vec!["stalled", "recovered"]),
    ] {
        let (first, second) = (db.connect().await, db.connect().await);
        let judge = judge(verdict);
        first
            .batch_execute(&format!("BEGIN; {judge}"))
            .await
            .unwrap();
        let pid: i32 = second
            .query_one("SELECT pg_backend_pid()", &[])
            .await
            .unwrap()
            .get(0);
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        let (judged, ()) = tokio::join!(second.batch_execute(&judge), async {
            eventually(PATIENCE, || async {
                let count: i64 = client.query_one(waiting, &[&pid]).await.unwrap().get(0);
                (count == 1).then_some(()).ok_or(count)
            })
            .await;
            first.batch_execute("COMMIT").await.unwrap();
        });
        judged.unwrap();
        second.batch_execute(&judge).await.unwrap();
        assert_eq!(told(&client, "acme", "a").await, so_far);
    }
    server.stop().await;
}

/// Killed again and again, at whatever it does: each spell of each subject is told of once.
#[tokio::test]
async fn a_server_that_is_killed_is_followed_by_another_and_nothing_is_said_twice() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let mut one = Process::start(&db.url, WITH_TOKENS).await;
    let mut other = Process::start(&db.url, WITH_TOKENS).await;
    watch(
        &one.api.with_token(&token("acme")),
        "beats",
        &["agent.heartbeat.*"],
        1,
    )
    .await;
    let mut all: Vec<String> = Vec::new();
    for round in 0..3 {
        let names: Vec<String> = (0..300).map(|n| format!("a-{round}-{n}")).collect();
        let acme = other.api.with_token(&token("acme"));
        beat(&acme, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        all.extend(names);
        if is_active(&acme).await {
            std::mem::swap(&mut one, &mut other);
        }
        assert!(is_active(&one.api.with_token(&token("acme"))).await);
        // As soon as it has begun to speak, whatever it has not said yet.
        let begun = "SELECT count(*) FROM tidewire.watched WHERE is_stalled AND subject LIKE $1";
        let like = format!("a-{round}-%");
        eventually(PATIENCE, || async {
            let row = client.query_one(begun, &[&like]).await.unwrap();
            let begun: i64 = row.get(0);
            (begun > 0).then_some(()).ok_or(begun)
        })
        .await;
        one.kill().await;
        eventually(PATIENCE, || async {
            let api = other.api.with_token(&token("acme"));
            is_active(&api).await.then_some(()).ok_or("nobody looks")
        })
        .await;
        one = Process::start(&db.url, WITH_TOKENS).await;
    }
    for name in &all {
        until_told(&client, name, &["stalled"]).await;
    }
    looks_for(&client, 2.0).await;
    let count = "SELECT count(*), count(DISTINCT subject) FROM tidewire.events WHERE source = 'tidewire.watch'";
    let row = client.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (900, 900));
}
