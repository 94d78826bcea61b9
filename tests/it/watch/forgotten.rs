//! Who is erased is watched no more, and there is no more room than there is.

use serde_json::json;

use super::fixture::{
    PATIENCE, beat, looks_for, start, try_watch, until_told, until_watched, unwatch, watch, watched,
};
use crate::privacy::fixture::{PERSON, erase};
use crate::support::eventually;

#[tokio::test]
async fn who_is_erased_is_forgotten_by_the_watch() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    watch(&acme, "any", &["*"], 600).await;
    beat(&acme, &[PERSON, "other"]).await;
    until_told(&client, PERSON, &["stalled"]).await;
    assert_eq!(watched(&client).await, 4);
    // Its events lie beyond where the watch has come: they must not be taken note of afterwards.
    let writer = db.connect().await;
    writer
        .batch_execute("BEGIN; SELECT tidewire.append('a.held', tenant => 'beta')")
        .await
        .unwrap();
    beat(&acme, &[PERSON]).await;
    assert!(erase(&acme, PERSON).await >= 3);
    writer.batch_execute("COMMIT").await.unwrap();
    looks_for(&client, 2.5).await;
    for table in ["watched", "watches", "events", "consumers"] {
        let query =
            format!("SELECT count(*) FROM tidewire.{table} AS t WHERE t::text LIKE '%{PERSON}%'");
        let left: i64 = client.query_one(&query, &[]).await.unwrap().get(0);
        assert_eq!(left, 0, "{table}");
    }
    let samples = "SELECT count(*) FROM pg_stats WHERE schemaname = 'tidewire' AND tablename = 'watched' AND attname = 'subject'";
    client
        .batch_execute("ANALYZE tidewire.watched")
        .await
        .unwrap();
    assert_eq!(
        client
            .query_one(samples, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        0
    );
    assert_eq!(watched(&client).await, 2);
    // A later event is a new one.
    beat(&acme, &[PERSON]).await;
    until_watched(&client, 4).await;
    server.stop().await;
}

/// While a person is erased, batch by batch, the watch says nothing of it that would be left.
#[tokio::test]
async fn nothing_is_said_of_a_person_while_it_is_erased() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    beat(&acme, &[PERSON]).await;
    until_watched(&client, 1).await;
    let eraser = db.connect().await;
    eraser
        .batch_execute("BEGIN; SELECT tidewire.erase_subject('acme', 's3ntinel', 'test')")
        .await
        .unwrap();
    // Beyond when it would have stalled.
    let due = "SELECT clock_timestamp() > due_at + interval '1.5 seconds' FROM tidewire.watched";
    eventually(PATIENCE, || async {
        let row = client.query_one(due, &[]).await.unwrap();
        row.get::<_, bool>(0).then_some(()).ok_or("not yet")
    })
    .await;
    eraser.batch_execute("COMMIT").await.unwrap();
    looks_for(&client, 1.5).await;
    let left = "SELECT count(*) FROM tidewire.events WHERE subject = 's3ntinel'";
    assert_eq!(
        client.query_one(left, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
    assert_eq!(watched(&client).await, 0);
    server.stop().await;
}

#[tokio::test]
async fn subjects_beyond_the_bound_are_not_lost_in_silence() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 600).await;
    let fill = "INSERT INTO tidewire.events (tenant, topic, subject)
                SELECT 'acme', 'agent.heartbeat.ok', 'a-' || n FROM generate_series(1, 10020) AS n";
    client.batch_execute(fill).await.unwrap();
    until_watched(&client, 10_000).await;
    let shown = eventually(PATIENCE, || async {
        let shown = acme.get("/v1/watches/beats").await;
        if shown["overflowed_at"].is_string() {
            Ok(shown)
        } else {
            Err(shown)
        }
    })
    .await;
    assert_eq!(
        (&shown["subjects"], &shown["is_full"]),
        (&json!(10_000), &json!(true))
    );
    beat(&acme, &["b-1", "b-2", "a-1"]).await;
    looks_for(&client, 1.0).await;
    assert_eq!(watched(&client).await, 10_000);
    let page = acme.page("earliest", "&topics=tidewire.watch.*").await;
    let events = page["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{page}");
    let expected =
        json!({"watch": "beats", "topics": ["agent.heartbeat.*"], "subjects_max": 10_000});
    assert_eq!(
        (&events[0]["topic"], &events[0]["data"]),
        (&json!("tidewire.watch.full"), &expected)
    );
    // Who has stalled is listed in pages.
    let stall = "UPDATE tidewire.watched SET due_at = to_timestamp(0) WHERE subject <= 'a-19'";
    let stalled = client.execute(stall, &[]).await.unwrap();
    assert!(stalled > 1_000, "{stalled}");
    eventually(PATIENCE, || async {
        let shown = acme.get("/v1/watches/beats").await;
        let count = shown["stalled_subjects"].as_u64().unwrap();
        (count == stalled).then_some(()).ok_or(count)
    })
    .await;
    let (mut after, mut all) = (String::new(), Vec::new());
    loop {
        let page = acme.get(&format!("/v1/watches/beats?after={after}")).await;
        let listed = page["stalled"].as_array().unwrap();
        assert!(listed.len() <= 1_000);
        all.extend(
            listed
                .iter()
                .map(|one| one["subject"].as_str().unwrap().to_owned()),
        );
        if page["has_more"] == json!(false) {
            break;
        }
        after.clone_from(all.last().unwrap());
    }
    assert_eq!(u64::try_from(all.len()).unwrap(), stalled);
    assert!(all.is_sorted());
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_has_so_many_watches_and_no_more() {
    let (_db, server, acme) = start().await;
    let wanted = json!({"topics": ["a.*"], "within_s": 1});
    for n in 0..100 {
        assert_eq!(try_watch(&acme, &format!("w-{n}"), &wanted).await.0, 200);
    }
    let (status, problem) = try_watch(&acme, "one-more", &wanted).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (409, &json!("/problems/too-many"))
    );
    assert_eq!(try_watch(&acme, "w-7", &wanted).await.0, 200);
    assert_eq!(unwatch(&acme, "w-7").await, 204);
    assert_eq!(try_watch(&acme, "one-more", &wanted).await.0, 200);
    server.stop().await;
}
