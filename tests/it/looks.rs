//! Looks at credentials and settings that cannot be made, or are answered by another server of the database.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::credentials::create_key;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Server, TestDb, eventually};

/// What is decided anywhere is in force everywhere within this time.
const PROMISED: Duration = Duration::from_secs(1);
/// By when it is said that looks are late, and that they are not any more.
const SAID: Duration = Duration::from_secs(20);

async fn ready(api: &Api) -> (u16, String) {
    let answer = api.request(Method::GET, "/readyz").send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The cause of this issue, if it is there.
async fn cause_of(admin: &Api) -> Option<Value> {
    let status = admin.get("/v1/status").await;
    let issues = status["issues"].as_array().unwrap();
    let mut issues = issues.iter();
    let issue = issues.find(|issue| issue["code"] == "credentials-late")?;
    assert!(status["health"].as_u64().unwrap() <= 40, "{status}");
    assert_eq!(status["log"]["tail_is_up"], true, "{status}");
    Some(issue["cause"].clone())
}

#[tokio::test]
async fn credentials_that_cannot_be_looked_up_are_an_issue_and_not_ready() {
    for (break_it, mend_it, cause) in [
        (
            "ALTER TABLE tidewire.credential_changes RENAME TO away",
            "ALTER TABLE tidewire.away RENAME TO credential_changes",
            "SQLSTATE 42P01",
        ),
        (
            "BEGIN; LOCK TABLE tidewire.setting_changes IN ACCESS EXCLUSIVE MODE",
            "ROLLBACK",
            "a transaction holds a table",
        ),
    ] {
        let db = TestDb::new().await;
        let server = Server::start_with(&db.url, WITH_TOKENS).await;
        let admin = server.api.with_token(&token::token("acme"));
        let (_, key) = create_key(&admin).await;
        let holder = server.api.with_token(&key);
        assert_eq!(holder.try_get("/v1/events").await.0, 200);
        assert_eq!(ready(&server.api).await, (200, "ok\n".to_owned()));
        assert_eq!(cause_of(&admin).await, None);
        let operator = db.connect().await;
        operator.batch_execute(break_it).await.unwrap();
        eventually(SAID, || async {
            let answer = ready(&server.api).await;
            if answer.0 == 503 { Ok(()) } else { Err(answer) }
        })
        .await;
        let said = cause_of(&admin).await.expect("it says why");
        assert!(said.as_str().unwrap().contains(cause), "{said}");
        let (status, text) = ready(&server.api).await;
        assert_eq!(
            (status, text.as_str()),
            (503, "credentials cannot be looked up\n")
        );
        // Who is known stays in, and the process is alive.
        assert_eq!(holder.try_get("/v1/events").await.0, 200);
        let alive = server.api.request(Method::GET, "/livez");
        assert_eq!(alive.send().await.unwrap().status(), 200);
        operator.batch_execute(mend_it).await.unwrap();
        eventually(SAID, || async {
            let answer = ready(&server.api).await;
            if answer.0 == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
        assert_eq!(cause_of(&admin).await, None);
        server.stop().await;
    }
}

/// A database of which each new connection takes from a table when its server began.
async fn pretend(client: &Client) {
    let name: String = client
        .query_one("SELECT current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "CREATE SCHEMA another;
             CREATE TABLE another.server AS SELECT pg_catalog.pg_postmaster_start_time() AS began_at;
             CREATE FUNCTION another.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql STABLE
                AS 'SELECT s.began_at FROM another.server AS s';
             ALTER DATABASE {name} SET search_path = another, pg_catalog, public"
        ))
        .await
        .unwrap();
}

/// The connections stay and another server answers: as behind a pooler after a failover. Here the same one says that it began at
/// another time, and has written its changes under numbers of transactions that have passed, as one does that is behind.
#[tokio::test]
async fn a_change_that_another_server_has_made_is_seen_though_no_connection_was_lost() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    pretend(&client).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let tenants = ["acme", "beta"].map(|tenant| server.api.with_token(&token::token(tenant)));
    let declare = async |tenant: &Api, maximum: u32| {
        let request = tenant.request(Method::PUT, "/v1/topics/deal.*");
        let declared = request.json(&json!({"schema": {"maximum": maximum}}));
        assert_eq!(declared.send().await.unwrap().status(), 204);
    };
    let stores = async |tenant: &Api, data: u32| {
        let event = json!({"topic": "deal.won", "data": data});
        tenant.try_append(&event).await.0.as_u16()
    };
    for tenant in &tenants {
        declare(tenant, 5).await;
        assert_eq!(
            (stores(tenant, 5).await, stores(tenant, 6).await),
            (201, 422)
        );
    }
    let (id, key) = create_key(&tenants[0]).await;
    let holder = server.api.with_token(&key);
    assert_eq!(holder.try_get("/v1/events").await.0, 200);
    let change = |moved: &str| {
        format!(
            "BEGIN;
             UPDATE tidewire.declared_topics SET schema = '{{\"maximum\": 9}}' WHERE tenant = 'acme';
             UPDATE tidewire.setting_changes SET changed_in = '3' WHERE tenant = 'acme';
             UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'operator' WHERE key_id = '{id}';
             UPDATE tidewire.credential_changes SET changed_in = '3';
             {moved};
             COMMIT"
        )
    };
    client
        .batch_execute(&change(
            "UPDATE another.server SET began_at = began_at + interval '1 hour'",
        ))
        .await
        .unwrap();
    eventually(PROMISED, || async {
        let seen = (
            stores(&tenants[0], 9).await,
            holder.try_get("/v1/events").await.0.as_u16(),
        );
        if seen == (201, 401) {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    assert_eq!(
        stores(&tenants[1], 9).await,
        422,
        "the other's are as they were"
    );
    server.stop().await;
}
