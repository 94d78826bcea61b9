//! Transactions that operators leave open: a tenant whose rows they hold is held up, and nobody else.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::client::json_of;
use crate::support::credentials::{admin, create_key, revoke};
use crate::support::token::WITH_TOKENS;
use crate::support::{Api, Server, TestDb, eventually};

/// What nobody is in the way of is answered within this time, on a busy machine too; whoever is held up has 1.5 s.
const QUICK: Duration = Duration::from_secs(1);

/// What `asked` answers, and that it was quick.
async fn quick<T>(what: &str, asked: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let answer = asked.await;
    let took = began.elapsed();
    assert!(took < QUICK, "{what} took {took:?}");
    answer
}

async fn change(api: &Api, change: &Value) -> Response {
    let request = api.request(Method::PATCH, "/v1/settings").json(change);
    request.send().await.unwrap()
}

/// A transaction in which an operator changes the settings of this tenant, left open.
async fn operator(db: &TestDb, tenant: &str) -> Client {
    let client = db.connect().await;
    let statement = format!(
        "BEGIN; UPDATE tidewire.tenant_settings SET consent = 'withhold' WHERE tenant = '{tenant}'"
    );
    client.batch_execute(&statement).await.unwrap();
    client
}

/// The server's connections for credentials and settings.
async fn lines(client: &Client) -> Vec<(String, i32)> {
    let lines = "SELECT application_name, pid FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name IN ('tidewire credentials', 'tidewire settings', 'tidewire changes') ORDER BY 1";
    let rows = client.query(lines, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_held_up_holds_up_nobody_else() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let declared = json!({"topic_mode": "declared"});
    let open = json!({"topic_mode": "open"});
    assert_eq!(change(&acme, &open).await.status(), 200);
    let watcher = db.connect().await;
    let before = lines(&watcher).await;
    assert_eq!(before.len(), 3, "{before:?}");
    let operator = operator(&db, "acme").await;
    // Many at once, of which each is held up, and some whose senders go away.
    let mut crowd = JoinSet::new();
    for n in 0..31 {
        let (acme, declared) = (acme.clone(), declared.clone());
        let patience = Duration::from_millis(if n < 25 { 40 } else { 20_000 });
        crowd.spawn(async move {
            let answer = tokio::time::timeout(patience, change(&acme, &declared)).await;
            answer.ok().map(|answer| {
                let again = answer.headers().contains_key("retry-after");
                (answer.status().as_u16(), again)
            })
        });
    }
    for round in 0..8 {
        let fresh = admin(&server, &format!("fresh-{round}"));
        let event = json!({"topic": "deal.won"});
        quick("another's first append", fresh.append(&event)).await;
        let status = quick("another's change", change(&beta, &open))
            .await
            .status();
        assert_eq!(status, 200);
        let token = json!({"jti": format!("t-{round}")});
        quick("its own revocation", revoke(&acme, &token)).await;
        let (id, key) = quick("a key", create_key(&acme)).await;
        let holder = server.api.with_token(&key);
        let read = holder.try_get("/v1/events");
        assert_eq!(quick("its use", read).await.0, 200);
        let path = format!("/v1/api-keys/{id}");
        let request = acme.request(Method::DELETE, &path);
        let revoked = quick("its revocation", request.send()).await;
        assert_eq!(revoked.unwrap().status(), 204);
        assert_eq!(holder.try_get("/v1/events").await.0, 401);
    }
    let mut refused = 0;
    while let Some(answer) = crowd.join_next().await {
        if let Some((status, again)) = answer.unwrap() {
            assert!(status == 503 && again, "{status} {again}");
            refused += 1;
        }
    }
    assert_eq!(refused, 6);
    let (status, problem) = json_of(change(&acme, &declared).await).await;
    assert_eq!(status, 503);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("another transaction"), "{problem}");
    assert_eq!(
        lines(&watcher).await,
        before,
        "no connection was replaced for it"
    );
    operator.batch_execute("COMMIT").await.unwrap();
    assert_eq!(change(&acme, &declared).await.status(), 200);
    let (status, problem) = acme.try_append(&json!({"topic": "deal.won"})).await;
    assert_eq!(status, 422, "{problem}");
    let settings = acme.get("/v1/settings").await;
    assert_eq!(settings["consent"], "withhold", "{settings}");
    server.stop().await;
}

/// Whoever is held up for a moment only does not notice.
#[tokio::test]
async fn a_change_that_is_held_up_for_a_moment_is_made() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let declared = json!({"topic_mode": "declared"});
    assert_eq!(
        change(&acme, &json!({"topic_mode": "open"})).await.status(),
        200
    );
    let operator = operator(&db, "acme").await;
    let watcher = db.connect().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'tidewire changes' AND wait_event_type = 'Lock'";
    let ended = async {
        // It waits, and gives up.
        for wanted in [1_i64, 0] {
            eventually(Duration::from_secs(10), || async {
                let count: i64 = watcher.query_one(waits, &[]).await.unwrap().get(0);
                (count == wanted).then_some(()).ok_or(count)
            })
            .await;
        }
        operator.batch_execute("COMMIT").await.unwrap();
    };
    let (changed, ()) = tokio::join!(change(&acme, &declared), ended);
    assert_eq!(changed.status(), 200);
    server.stop().await;
}

/// A revocation that waits for an operator's own keeps nobody from being looked up, and no look from being made.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_held_up_delay_no_look() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let mut keys = Vec::new();
    for _ in 0..8 {
        keys.push(create_key(&acme).await);
    }
    let watcher = db.connect().await;
    let before = lines(&watcher).await;
    let operator = db.connect().await;
    operator
        .batch_execute(
            "BEGIN; UPDATE tidewire.api_keys SET name = name;
             UPDATE tidewire.tenant_settings SET consent = 'withhold'",
        )
        .await
        .unwrap();
    let mut held_up = JoinSet::new();
    for (id, _) in &keys {
        let request = acme.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
        held_up.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    for (_, key) in &keys {
        let holder = server.api.with_token(key);
        let read = holder.try_get("/v1/events");
        assert_eq!(quick("a key that is looked up", read).await.0, 200);
        let beta = admin(&server, "beta");
        let changed = quick(
            "another's change",
            change(&beta, &json!({"topic_mode": "open"})),
        )
        .await;
        assert_eq!(changed.status(), 200);
    }
    while let Some(status) = held_up.join_next().await {
        assert_eq!(status.unwrap(), 503);
    }
    assert!(server.app.access.registry().late().is_none());
    assert_eq!(lines(&watcher).await, before);
    operator.batch_execute("ROLLBACK").await.unwrap();
    for (id, key) in &keys {
        let request = acme.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
        assert_eq!(request.send().await.unwrap().status(), 204);
        let (status, _) = server.api.with_token(key).try_get("/v1/events").await;
        assert_eq!(status, 401);
    }
    server.stop().await;
}
