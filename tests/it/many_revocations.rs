//! A credential that changes costs what it is, however many others there are and whoever changes them.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::revocation::ends;
use crate::support::credentials::{create_key, marks, revoke};
use crate::support::token::{self, WITH_TOKENS, claims, issue, with_jti};
use crate::support::{Server, TestDb, eventually};

/// Revocations that there are: more than a page of them, of more tenants than one.
const REVOKED: i64 = 200_000;
/// What nobody is in the way of is answered within this time, on a busy machine too; whoever is held up has 1.5 s.
const QUICK: Duration = Duration::from_secs(1);

/// As many revocations as a tenant may have, of as many tenants as it takes, without what is said of each.
async fn revoke_many(client: &Client) {
    let insert = format!(
        "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by)
         SELECT 'tenant-' || n % ({REVOKED} / 10000), 'jti', 'token-' || n, 'somebody' FROM generate_series(1, {REVOKED}) AS n;
         COMMIT; ANALYZE tidewire.revoked_tokens"
    );
    client.batch_execute(&insert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_among_very_many_closes_in_time() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    revoke_many(&client).await;
    let a = Server::start_with(&db.url, WITH_TOKENS).await;
    let quiet = [WITH_TOKENS, &["--notify", "never"]].concat();
    let b = Server::start_with(&db.url, &quiet).await;
    let admin = a.api.with_token(&token::token("acme"));
    // The first and the last of all pages are known.
    for jti in ["token-1", "token-100000", "token-199999", "token-200000"] {
        let number: i64 = jti.trim_start_matches("token-").parse().unwrap();
        let tenant = format!("tenant-{}", number % (REVOKED / 10_000));
        for server in [&a, &b] {
            let api = server.api.with_token(&with_jti(&tenant, jti));
            assert_eq!(api.try_get("/v1/events").await.0, 401, "{tenant} {jti}");
        }
    }
    for round in 0..3 {
        let jti = format!("open-{round}");
        ends(&b, &with_jti("acme", &jti), async {
            revoke(&admin, &json!({ "jti": jti })).await;
        })
        .await;
        let (id, key) = create_key(&admin).await;
        ends(&b, &key, async {
            let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
            assert_eq!(request.send().await.unwrap().status(), 204);
        })
        .await;
        // With connections that are new.
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'tidewire credentials'";
        assert_eq!(client.query(end, &[]).await.unwrap().len(), 2);
        for server in [&a, &b] {
            eventually(Duration::from_secs(20), || async {
                let api = server.api.with_token(&token::token("acme"));
                let (status, answer) = api.try_get("/v1/api-keys").await;
                (status == 200).then_some(()).ok_or(answer)
            })
            .await;
        }
    }
    // Many at once, by an operator: pages of them, each of which counts.
    let many = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by)
                SELECT 'acme', 'jti', 'more-' || n, 'operator' FROM generate_series(1, 12000) AS n";
    client.batch_execute(many).await.unwrap();
    for jti in ["more-1", "more-5001", "more-12000"] {
        eventually(QUICK, || async {
            let api = b.api.with_token(&with_jti("acme", jti));
            let (status, answer) = api.try_get("/v1/events").await;
            (status == 401).then_some(()).ok_or(answer)
        })
        .await;
    }
    a.stop().await;
    b.stop().await;
}

/// What is notified while this is done.
async fn notified_by(db: &TestDb, done: impl Future<Output = ()>) -> usize {
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let other = db.connect().await;
    let doing = async {
        let listen = "LISTEN tidewire_credentials";
        client.batch_execute(listen).await.unwrap();
        done.await;
        let over = "NOTIFY tidewire_credentials, 'over'";
        other.batch_execute(over).await.unwrap();
    };
    let hearing = async {
        let mut heard = 0;
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(one) = message.unwrap() {
                if one.payload() == "over" {
                    break;
                }
                heard += 1;
            }
        }
        heard
    };
    tokio::join!(doing, hearing).1
}

#[tokio::test]
async fn a_key_that_is_created_makes_no_server_look() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let mut key = None;
    let heard = notified_by(&db, async {
        for _ in 0..5 {
            key = Some(create_key(&admin).await);
        }
    });
    assert_eq!((heard.await, marks(&client).await), (0, 0));
    let (id, key) = key.unwrap();
    let holder = server.api.with_token(&key);
    assert_eq!(holder.try_get("/v1/events").await.0, 200);
    // Nor does its use; its end does.
    server.app.access.registry().write_used().await;
    assert_eq!(marks(&client).await, 0);
    let heard = notified_by(&db, async {
        let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
        assert_eq!(request.send().await.unwrap().status(), 204);
    });
    assert_eq!((heard.await, marks(&client).await), (1, 1));
    server.stop().await;
}

/// What an operator holds is held up; what others do meanwhile is seen, and what the operator did as well when it commits later.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_change_of_a_tenants_credentials_holds_up_nobody_elses() {
    let db = TestDb::new().await;
    let a = Server::start_with(&db.url, WITH_TOKENS).await;
    let b = Server::start_with(&db.url, WITH_TOKENS).await;
    let [acme, beta] = ["acme", "beta"].map(|name| a.api.with_token(&token::token(name)));
    let (held, held_key) = create_key(&acme).await;
    revoke(&acme, &json!({"jti": "t-1"})).await;
    let held_holder = b.api.with_token(&held_key);
    assert_eq!(held_holder.try_get("/v1/events").await.0, 200);
    let operator = db.connect().await;
    operator
        .batch_execute(&format!(
            "BEGIN; UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'operator' WHERE key_id = '{held}';
             UPDATE tidewire.revoked_tokens SET revoked_at = now() WHERE tenant = 'acme';
             INSERT INTO tidewire.revoked_tokens (tenant, claim, value) VALUES ('acme', 'jti', 't-2')"
        ))
        .await
        .unwrap();
    for round in 0..5 {
        let began = Instant::now();
        let (id, key) = create_key(&beta).await;
        let holder = b.api.with_token(&key);
        assert_eq!(holder.try_get("/v1/events").await.0, 200);
        let request = beta.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
        assert_eq!(request.send().await.unwrap().status(), 204);
        let jti = format!("t-{round}");
        revoke(&beta, &json!({ "jti": jti })).await;
        let path = format!("/v1/revocations/jti/{jti}");
        let request = beta.request(Method::DELETE, &path);
        assert_eq!(request.send().await.unwrap().status(), 204);
        let took = began.elapsed();
        assert!(took < QUICK, "{took:?}");
    }
    // Its own are held up where they meet it, and nowhere else.
    let request = acme.request(Method::DELETE, &format!("/v1/api-keys/{held}"));
    assert_eq!(request.send().await.unwrap().status(), 503);
    revoke(&acme, &json!({"jti": "t-3"})).await;
    assert_eq!(held_holder.try_get("/v1/events").await.0, 200);
    ends(&b, &issue(&claims("gamma")), async {
        let gamma = a.api.with_token(&token::token("gamma"));
        revoke(&gamma, &json!({"sub": claims("gamma").sub})).await;
    })
    .await;
    // It began before all of these.
    operator.batch_execute("COMMIT").await.unwrap();
    eventually(QUICK, || async {
        let status = held_holder.try_get("/v1/events").await.0;
        (status == 401).then_some(()).ok_or(status)
    })
    .await;
    let second = b.api.with_token(&with_jti("acme", "t-2"));
    assert_eq!(second.try_get("/v1/events").await.0, 401);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_key_on_an_open_connection_is_in_use() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let registry = server.app.access.registry();
    let (_, key) = create_key(&server.api.with_token(&token::token("acme"))).await;
    let _socket = server.api.with_token(&key).ws().await;
    let used = "SELECT last_used_at FROM tidewire.api_keys";
    let used = async || -> chrono::DateTime<chrono::Utc> {
        registry.write_used().await;
        client.query_one(used, &[]).await.unwrap().get(0)
    };
    let first = used().await;
    assert!(used().await > first, "as long as it is open");
    server.stop().await;
}
