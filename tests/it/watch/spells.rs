//! A spell of silence, from its beginning to its end.

use serde_json::{Value, json};

use super::fixture::{
    PATIENCE, beat, looks_for, start, told, until_told, until_watched, watch, watched,
};
use crate::metrics::text;
use crate::support::eventually;

#[tokio::test]
async fn who_is_silent_is_told_of_once_and_once_more_when_it_is_heard() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    let first = json!({"topic": "agent.heartbeat.ok", "subject": "a"});
    let cursor = acme.append(&first).await[0]["cursor"].clone();
    until_told(&client, "a", &["stalled"]).await;
    // What it does otherwise is no sign, and neither is that it was told of.
    acme.append(&json!({"topic": "deal.won", "subject": "a"}))
        .await;
    looks_for(&client, 2.5).await;
    assert_eq!(told(&client, "acme", "a").await, ["stalled"]);
    let shown = acme.get("/v1/watches/beats").await;
    assert_eq!(
        (&shown["subjects"], &shown["stalled_subjects"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(shown["stalled"][0]["subject"], "a", "{shown}");
    assert_eq!(shown["stalled"][0]["last_cursor"], cursor, "{shown}");

    beat(&acme, &["a"]).await;
    until_told(&client, "a", &["stalled", "recovered"]).await;
    // The next spell.
    until_told(&client, "a", &["stalled", "recovered", "stalled"]).await;

    let [stalled, recovered, _] = eventually(PATIENCE, || async {
        let page = acme
            .page("earliest", "&topics=agent.stalled,agent.recovered")
            .await;
        let events = page["events"].as_array().unwrap().clone();
        <[Value; 3]>::try_from(events)
    })
    .await;
    assert_eq!(
        (
            &stalled["source"],
            &stalled["priority"],
            &stalled["subject"]
        ),
        (&json!("tidewire.watch"), &json!("high"), &json!("a"))
    );
    let data = &stalled["data"];
    assert_eq!(
        (&data["watch"], &data["within_s"]),
        (&json!("beats"), &json!(1))
    );
    assert_eq!(data["last_cursor"], cursor);
    let silent = data["silent_s"].as_f64().unwrap();
    assert!((1.0..20.0).contains(&silent), "{data}");
    let again = recovered["data"]["silent_s"].as_f64().unwrap();
    assert!(
        again > silent && recovered["data"]["last_cursor"] != cursor,
        "{recovered}"
    );
    server.stop().await;
}

#[tokio::test]
async fn what_the_watch_says_keeps_nobody_alive() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "any", &["*"], 1).await;
    // Nor does whoever says the same.
    for topic in ["deal.won", "agent.stalled", "agent.recovered"] {
        let event = json!({"topic": topic, "subject": "a", "source": "somebody"});
        acme.append(&event).await;
    }
    until_told(&client, "a", &["stalled"]).await;
    acme.append(&json!({"topic": "agent.recovered", "subject": "a", "source": "somebody"}))
        .await;
    looks_for(&client, 2.5).await;
    assert_eq!(told(&client, "acme", "a").await, ["stalled"]);
    server.stop().await;
}

#[tokio::test]
async fn who_is_heard_of_in_time_is_never_told_of() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 2).await;
    beat(&acme, &["alive", "silent"]).await;
    let mut beats = 0;
    while told(&client, "acme", "silent").await.is_empty() || beats < 20 {
        beat(&acme, &["alive"]).await;
        looks_for(&client, 0.2).await;
        beats += 1;
    }
    assert!(told(&client, "acme", "alive").await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_watch_begins_when_it_is_declared() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    beat(&acme, &["before"]).await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    beat(&acme, &["after"]).await;
    until_told(&client, "after", &["stalled"]).await;
    assert_eq!(watched(&client).await, 1);
    // Another time counts for those who are known, other topics begin anew.
    watch(&acme, "beats", &["agent.heartbeat.*"], 600).await;
    beat(&acme, &["after"]).await;
    until_told(&client, "after", &["stalled", "recovered"]).await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    until_told(&client, "after", &["stalled", "recovered", "stalled"]).await;
    watch(&acme, "beats", &["agent.*"], 1).await;
    assert_eq!(watched(&client).await, 0);
    beat(&acme, &["new"]).await;
    until_told(&client, "new", &["stalled"]).await;
    assert_eq!(watched(&client).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn the_status_and_the_metrics_say_how_the_watch_stands() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    beat(&acme, &["a", "b"]).await;
    until_watched(&client, 2).await;
    until_told(&client, "b", &["stalled"]).await;
    let status = acme.get("/v1/status").await;
    let expected =
        json!([{"name": "watch", "is_active": true, "is_paused": false, "lag_events": 0}]);
    assert_eq!(status["consumers"], expected);
    eventually(PATIENCE, || async {
        let text = text(&acme).await;
        let is_there = |line: &str| text.contains(&format!("\n{line}\n"));
        let all = is_there("tidewire_watch_stalled_subjects 2")
            && is_there("tidewire_consumer_active{consumer=\"watch\"} 1")
            && is_there("tidewire_consumer_lag_events{consumer=\"watch\"} 0");
        all.then_some(()).ok_or(text)
    })
    .await;
    // A writer that stays open holds back what comes after it, and that shows.
    client
        .batch_execute("BEGIN; SELECT tidewire.append('a.held', tenant => 'beta')")
        .await
        .unwrap();
    beat(&acme, &["a", "b"]).await;
    eventually(PATIENCE, || async {
        let status = acme.get("/v1/status").await;
        let lag = status["consumers"][0]["lag_events"].clone();
        let is_behind = |lag: &Value| lag.as_i64().is_some_and(|lag| lag >= 3);
        if is_behind(&lag) { Ok(()) } else { Err(lag) }
    })
    .await;
    client.batch_execute("COMMIT").await.unwrap();
    server.stop().await;
}
