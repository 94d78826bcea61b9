//! For how long what is held waits, and who finds a place to wait.

use std::time::{Duration, Instant};

use serde_json::json;
use tidewire::access::Principal;
use tidewire::event::Tenant;
use tokio::task::JoinSet;

use super::{PATIENCE, ids, is_open, send, settings};
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Proxy, Server, TestDb};

/// An answer that comes when the time is over comes no later than this.
const MOMENT: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn whose_time_is_over_is_answered_then_and_leaves_the_queue() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    let acme = server.api.with_token(&token("acme"));
    acme.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    is_open(&server).await;
    let mut held = JoinSet::new();
    for n in 0..100 {
        let (acme, event) = (
            acme.clone(),
            json!({"topic": "a.late", "id": format!("{n}")}),
        );
        held.spawn(async move {
            let began = Instant::now();
            let refused = send(&acme, Some("wait=2"), &event).await;
            let status = refused.status().as_u16();
            let after = refused.headers().get("retry-after").cloned();
            (status, began.elapsed(), after)
        });
    }
    for (status, took, after) in held.join_all().await {
        assert_eq!(status, 503);
        let late = took.checked_sub(Duration::from_secs(2));
        assert!(late.is_some_and(|late| late < MOMENT), "{took:?}");
        let after: u64 = after.unwrap().to_str().unwrap().parse().unwrap();
        assert!(after > 3_000, "when the database is asked again: {after}");
    }
    assert_eq!(server.app.appender.waiting(), (0, 0), "with their bytes");
    proxy.restore();
    let after = send(&acme, Some("wait=20"), &json!({"topic": "a.after"})).await;
    assert_eq!(after.status(), 201);
    assert_eq!(ids(&db, "a.late").await, Vec::<String>::new());
    server.stop().await;
}

/// A tenant of which nothing is known yet, and a line that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read_are_waited_for_as_long_as_the_client_says() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    server
        .api
        .with_token(&token("acme"))
        .append(&json!({"topic": "a.before"}))
        .await;
    proxy.hold();
    for (tenant, prefer, seconds) in [("one", "wait=1", 1), ("two", "wait=3", 3)] {
        let fresh = server.api.with_token(&token(tenant));
        let began = Instant::now();
        let refused = send(&fresh, Some(prefer), &json!({"topic": "a.b"})).await;
        let late = began.elapsed().checked_sub(Duration::from_secs(seconds));
        assert_eq!(refused.status(), 503);
        assert!(late.is_some_and(|late| late < MOMENT), "{tenant}: {late:?}");
    }
    proxy.restore();
    server.stop().await;
}

/// Six tenths of a second for a round trip: nothing is away, and nothing is quick.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_append_of_a_tenant_over_a_long_line_is_stored() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, WITH_TOKENS).await;
    server
        .api
        .with_token(&token("acme"))
        .append(&json!({"topic": "a.before"}))
        .await;
    proxy.slow(Duration::from_millis(300));
    let fresh = server.api.with_token(&token("fresh"));
    let stored = send(&fresh, Some("wait=3"), &json!({"topic": "a.b"})).await;
    assert_eq!(stored.status(), 201);
    let other = server.api.with_token(&token("other"));
    let stored = send(&other, None, &json!({"topic": "a.b"})).await;
    assert_eq!(stored.status(), 201);
    proxy.restore();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_crowd_leaves_others_a_place_to_wait() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    let acme = server.api.with_token(&token("acme"));
    acme.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    is_open(&server).await;
    // As many as wait for the settings of one tenant at most.
    let account = |tenant: &str| {
        server.app.limits.account(&Principal {
            tenant: Tenant::parse(tenant).unwrap(),
            ..Principal::development()
        })
    };
    let loud = account("loud");
    let crowd: Vec<_> = std::iter::from_fn(|| loud.place_among(&server.app.held).ok()).collect();
    assert!((1_000..4_000).contains(&crowd.len()), "{}", crowd.len());
    let [loud, quiet] = ["loud", "quiet"].map(|name| server.api.with_token(&token(name)));
    let event = json!({"topic": "a.held", "id": "held"});
    let refused = send(&loud, Some("wait=60"), &event).await;
    assert_eq!(refused.status(), 503, "at once");
    let mut held = JoinSet::new();
    held.spawn(async move { send(&quiet, Some("wait=60"), &event).await.status() });
    crate::support::eventually(PATIENCE, || async {
        let places = server.app.held.count();
        (places > crowd.len()).then_some(()).ok_or(places)
    })
    .await;
    proxy.restore();
    assert_eq!(held.join_next().await.unwrap().unwrap(), 201);
    drop(crowd);
    server.stop().await;
}
