//! Events that name no priority get that of their topic, by whichever way they come.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;

use crate::support::credentials::admin;
use crate::support::token::WITH_TOKENS;
use crate::support::{Server, TestDb};
use crate::tenants::load::login;

#[tokio::test]
async fn the_most_exact_declared_topic_gives_the_priority() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = admin(&server, "acme");
    let declare = async |pattern: &str, body| {
        let request = api.request(Method::PUT, &format!("/v1/topics/{pattern}"));
        request.json(&body).send().await.unwrap().status()
    };
    for (pattern, body) in [
        ("*", json!({"priority": "low"})),
        ("deal.*", json!({"priority": "high"})),
        ("deal.noise", json!({"priority": "low"})),
        // Says nothing of it: the next one does.
        ("deal.stage.*", json!({"description": "stages"})),
    ] {
        assert_eq!(declare(pattern, body).await, 204, "{pattern}");
    }
    assert_eq!(declare("deal.x", json!({"priority": "urgent"})).await, 400);
    let listed = api.get("/v1/topics").await;
    let topics = listed["topics"].as_array().unwrap();
    assert_eq!(topics[1]["priority"], "high", "{listed}");
    let events = [
        ("other", None, "low"),
        ("deal.won", None, "high"),
        ("deal.noise", None, "low"),
        ("deal.stage.new", None, "high"),
        ("deal.noise", Some("critical"), "critical"),
        ("deal.won", Some("normal"), "normal"),
    ];
    let role = login(&db, "acme", "tidewire_writer").await;
    let writer = db.connect_as(&role, &role).await;
    let append = "SELECT tidewire.append($1, id => $2, priority => $3)";
    let mut wanted = BTreeMap::new();
    for (n, (topic, priority, expected)) in events.into_iter().enumerate() {
        let mut event = json!({"topic": topic, "id": format!("http-{n}")});
        if let Some(priority) = priority {
            event["priority"] = priority.into();
        }
        api.append(&event).await;
        let id = format!("sql-{n}");
        writer
            .execute(append, &[&topic, &id, &priority])
            .await
            .unwrap();
        wanted.insert(format!("http-{n}"), expected.to_owned());
        wanted.insert(id, expected.to_owned());
    }
    // Another tenant has decided nothing.
    admin(&server, "beta")
        .append(&json!({"topic": "deal.won", "id": "beta"}))
        .await;
    wanted.insert("beta".into(), "normal".into());
    let stored = "SELECT id, priority::text FROM tidewire.events WHERE topic NOT LIKE 'tidewire.%'";
    let rows = db.connect().await.query(stored, &[]).await.unwrap();
    let stored: BTreeMap<String, String> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(stored, wanted);
    server.stop().await;
}
