//! Two tenants under load, with the same topics, ids, subjects and idempotency keys: nothing of one reaches the other.

pub mod load;
pub mod rewriting;
mod verdict;

use std::time::Duration;

use load::{Load, TENANTS, count_of, login};
use rewriting::Rewriting;
use serde_json::{Value, json};
use verdict::Verdict;

use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Server, TestDb};

/// A window that holds a part of what is written, so that history is read from the database as well.
const SMALL_WINDOW: &[&str] = &["--window-events", "4000", "--audit-interval-s", "1"];

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_thousand_events_not_one_crosses() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &[WITH_TOKENS, SMALL_WINDOW].concat()).await;
    let load = Load {
        per_tenant: 50_000,
        patience: Duration::from_secs(20),
    };
    let mut verdict = Verdict::default();
    load.run(&db, &server, &mut verdict).await;
    for tenant in TENANTS {
        verdict
            .read_back(&db, &server, tenant, load.per_tenant)
            .await;
    }
    let (stored, read) = (count_of(&db).await, verdict.looked_at);
    println!("{stored} events stored, {read} looked at by readers");
    assert_eq!(stored, 100_000);
    assert!(read >= 500_000, "{read}");
    verdict.assert_clean();
    server.stop().await;
}

/// What the database is asked without the tenant's filter is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_filter_is_caught() {
    for (statement, without) in [
        (
            "tenant = $1 AND seq > $2 AND seq <= $3 AND recorded_at",
            "'' <> $1    AND seq > $2 AND seq <= $3 AND recorded_at",
        ),
        (
            "k.key = tidewire.idempotency_key(i.tenant, i.id)",
            "k.key = tidewire.idempotency_key('acme'  , i.id)",
        ),
    ] {
        assert_eq!(statement.len(), without.len());
        let db = TestDb::new().await;
        let is_function = !statement.contains('$');
        if is_function {
            break_function(&db).await;
        }
        let (proxy, url) = Rewriting::before_database(&db.url, statement, without).await;
        let server = Server::start_with(&url, &[WITH_TOKENS, SMALL_WINDOW].concat()).await;
        let load = Load {
            per_tenant: 6_000,
            patience: Duration::from_secs(5),
        };
        let mut verdict = Verdict::default();
        load.run(&db, &server, &mut verdict).await;
        for tenant in TENANTS {
            verdict
                .read_back(&db, &server, tenant, load.per_tenant)
                .await;
        }
        assert!(
            is_function || proxy.count() > 0,
            "the statement is another now: {statement}"
        );
        assert!(!verdict.is_clean(), "{statement} is not missed");
        assert!(is_function || verdict.crossed() > 0, "{statement}");
        server.stop().await;
    }
}

/// Ids are remembered without their tenant.
async fn break_function(db: &TestDb) {
    let broken = "CREATE OR REPLACE FUNCTION tidewire.idempotency_key(tenant text, id text) RETURNS bytea
                  LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN substring(sha256(convert_to(id, 'UTF8')) FROM 1 FOR 16)";
    db.connect().await.batch_execute(broken).await.unwrap();
}

/// A transaction of a tenant's role holds readers back: administrators see that, and what it is called only their own.
#[tokio::test]
async fn who_holds_the_log_back_is_named_to_its_own_tenant() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let role = login(&db, "acme", "tidewire_writer").await;
    let open = db.connect_as(&role, &role).await;
    open.batch_execute(
        "SET application_name = 'acme payroll'; BEGIN; SELECT tidewire.append('deal.won')",
    )
    .await
    .unwrap();
    for (tenant, application) in [("acme", json!("acme payroll")), ("beta", Value::Null)] {
        let api = server.api.with_token(&token(tenant));
        let status = api.get("/v1/status").await;
        let holder = &status["log"]["held_by"];
        assert!(holder["pid"].is_number(), "{status}");
        assert_eq!(holder["application"], application, "{tenant}");
        let mut ws = api.ws().await;
        ws.send(json!({"type": "get_status"})).await;
        let frame = ws.until("status").await;
        assert_eq!(
            frame["log"]["held_by"]["application"], application,
            "{tenant}"
        );
    }
    open.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}
