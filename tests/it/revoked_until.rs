//! Revocations that say until when: in force for an hour beyond it, then forgotten, and no server is woken for it.

use std::time::Duration;

use serde_json::json;

use crate::support::credentials::{marks, revoke};
use crate::support::token::{self, WITH_TOKENS, issue};
use crate::support::{Server, TestDb, eventually};

async fn left(client: &tokio_postgres::Client) -> Vec<String> {
    let values = "SELECT value FROM tidewire.revoked_tokens ORDER BY value";
    let rows = client.query(values, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_revocation_outlives_its_until_by_an_hour_and_goes_a_day_later() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute(
            "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, until, revoked_at)
             SELECT 'acme', 'sub', value, now() + ago, now() + interval '1 minute' FROM (VALUES ('for ever', NULL),
                ('still', interval '1 hour'), ('just over', '-50 minutes'), ('over', '-2 hours')) AS v(value, ago);
             INSERT INTO tidewire.revoked_tokens (tenant, claim, value, until)
             SELECT 'acme', 'sub', 'gone ' || n, now() - interval '25 hours' FROM generate_series(1, 1100) AS n",
        )
        .await
        .unwrap();
    let before = marks(&client).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let listed = server
        .api
        .with_token(&token::token("acme"))
        .get("/v1/revocations")
        .await;
    let listed: Vec<_> = listed["revocations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["value"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, ["for ever", "just over", "still"]);
    for (name, status) in [
        ("for ever", 401),
        ("still", 401),
        ("just over", 401),
        ("over", 200),
    ] {
        let token = issue(&tidewire::access::Claims {
            sub: name.into(),
            ..token::claims("acme")
        });
        let (got, answer) = server.api.with_token(&token).try_get("/v1/events").await;
        assert_eq!(got, status, "{name}: {answer}");
    }
    // A thousand at a time, one after the other.
    let rest = ["for ever", "just over", "over", "still"];
    eventually(Duration::from_secs(10), || async {
        let left = left(&client).await;
        if left == rest { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(marks(&client).await, before, "no server has to look again");
    let told =
        "SELECT count(*) FROM tidewire.events WHERE topic = 'tidewire.audit.token.forgotten'";
    let told: i64 = client.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, 0, "nobody did anything");
    // Who removes one that is in force is heard, and written down.
    client
        .batch_execute("DELETE FROM tidewire.revoked_tokens WHERE value IN ('just over', 'over')")
        .await
        .unwrap();
    assert_eq!(marks(&client).await, before + 1);
    server.stop().await;
}

#[tokio::test]
async fn a_revocation_without_until_never_ends() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    revoke(&admin, &json!({"jti": "t-1"})).await;
    let client = db.connect().await;
    let until = "SELECT until IS NULL FROM tidewire.revoked_tokens";
    assert!(
        client
            .query_one(until, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    server.stop().await;
}
