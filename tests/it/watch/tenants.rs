//! Tenants do not see each other's watches, nor who has stalled there.

use serde_json::{Value, json};

use super::fixture::{beat, looks_for, start, told, until_told, unwatch, watch};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Server, TestDb};

#[tokio::test]
async fn another_tenants_watches_are_neither_seen_nor_fed() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let [acme, beta] = ["acme", "beta"].map(|tenant| server.api.with_token(&token(tenant)));
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    // A name in common, and a subject.
    beat(&acme, &["s3ntinel"]).await;
    beat(&beta, &["s3ntinel"]).await;
    until_told(&client, "s3ntinel", &["stalled"]).await;
    // What the other says of a subject of the same name is no sign of it.
    beat(&beta, &["s3ntinel"]).await;
    looks_for(&client, 1.5).await;
    assert_eq!(told(&client, "acme", "s3ntinel").await, ["stalled"]);
    assert!(told(&client, "beta", "s3ntinel").await.is_empty());
    assert_eq!(beta.get("/v1/watches").await, json!({"watches": []}));
    assert_eq!(beta.try_get("/v1/watches/beats").await.0, 404);
    assert_eq!(unwatch(&beta, "beats").await, 404);
    watch(&beta, "beats", &["deal.*"], 1).await;
    let listed = acme.get("/v1/watches").await;
    assert_eq!(listed["watches"][0]["topics"], json!(["agent.heartbeat.*"]));
    let shown: Value = beta.get("/v1/watches/beats").await;
    assert_eq!(
        (&shown["subjects"], &shown["stalled"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(unwatch(&beta, "beats").await, 204);
    let page = beta.page("earliest", "&topics=agent.*").await;
    assert!(!page.to_string().contains("stalled"), "{page}");
    assert_eq!(acme.get("/v1/watches/beats").await["stalled_subjects"], 1);
    server.stop().await;
}

#[tokio::test]
async fn a_tenants_sql_role_sees_nothing_of_watches_but_what_its_own_log_says() {
    let (db, server, acme) = start().await;
    let client = db.connect().await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 1).await;
    beat(&acme, &["a"]).await;
    until_told(&client, "a", &["stalled"]).await;
    let role = db.login("tidewire_analyst").await;
    client
        .execute(
            "INSERT INTO tidewire.tenant_roles (role, tenant) VALUES ($1::text::name, 'acme')",
            &[&role],
        )
        .await
        .unwrap();
    let analyst = db.connect_as(&role, &role).await;
    let own = "SELECT count(*) FROM tidewire.my_events WHERE topic = 'agent.stalled'";
    assert_eq!(
        analyst.query_one(own, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    for statement in [
        "SELECT 1 FROM tidewire.watches",
        "SELECT 1 FROM tidewire.watched",
        "SELECT 1 FROM tidewire.watch_clock",
        "SELECT 1 FROM tidewire.consumers",
        "SELECT last_value FROM tidewire.watch_changes",
        "SELECT tidewire.judge_watched('{}', '{}', '{}', '{}', '{}')",
        "SELECT tidewire.watch_signs('{}', '{}', '{}', '{}', '{}', '{}', 1)",
    ] {
        let error = analyst.batch_execute(statement).await.unwrap_err();
        assert_eq!(
            error.code().map(tokio_postgres::error::SqlState::code),
            Some("42501"),
            "{statement}"
        );
    }
    server.stop().await;
}
