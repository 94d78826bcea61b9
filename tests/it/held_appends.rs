//! Appends that are held while the database is away, and reads that are not: who is held for whom, and what nobody waits for.

mod leave;
mod waits;
mod ways;

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::token::{WITH_TOKENS, token, with_jti};
use crate::support::{Api, Proxy, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
/// Far below what a database that does not answer is waited for.
const AT_ONCE: Duration = Duration::from_secs(2);

fn settings() -> Vec<&'static str> {
    let long = ["--breaker-failures", "3", "--breaker-recovery-s", "3600"];
    [WITH_TOKENS, &long].concat()
}

async fn send(api: &Api, prefer: Option<&str>, event: &Value) -> Response {
    let mut request = api.request(Method::POST, "/v1/events").json(event);
    if let Some(prefer) = prefer {
        request = request.header("prefer", prefer);
    }
    request.send().await.unwrap()
}

async fn is_open(server: &Server) {
    eventually(PATIENCE, || async {
        let now = server.app.appender.breaker().state().as_str();
        (now == "open").then_some(()).ok_or(now)
    })
    .await;
}

async fn ids(db: &TestDb, topic: &str) -> Vec<String> {
    let select = "SELECT id FROM tidewire.events WHERE topic = $1 ORDER BY seq";
    let rows = db.connect().await.query(select, &[&topic]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_of_a_credential_that_ends_is_never_written() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    let leaving = server.api.with_token(&with_jti("acme", "leaving"));
    let staying = server.api.with_token(&token("acme"));
    leaving.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    is_open(&server).await;
    let mut held = JoinSet::new();
    for (who, api) in [&leaving, &staying].into_iter().enumerate() {
        for n in 0..10 {
            let (api, event) = (
                api.clone(),
                json!({"topic": "a.held", "id": format!("{who}-{n}")}),
            );
            held.spawn(async move {
                (
                    who,
                    send(&api, Some("wait=60"), &event).await.status().as_u16(),
                )
            });
        }
    }
    eventually(PATIENCE, || async {
        let (waiting, _) = server.app.appender.waiting();
        (waiting >= 20).then_some(()).ok_or(waiting)
    })
    .await;
    // Longer than it takes to be held for a moment.
    eventually(PATIENCE, || async {
        let late = server.app.access.registry().looked_before();
        (late > Duration::from_secs(3)).then_some(()).ok_or(late)
    })
    .await;
    let revoke = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by) VALUES ('acme', 'jti', 'leaving', 'operator')";
    db.connect().await.batch_execute(revoke).await.unwrap();
    proxy.restore();
    let mut answers = held.join_all().await;
    answers.sort_unstable();
    let statuses: Vec<u16> = answers.into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [[401; 10], [201; 10]].concat());
    let stored = ids(&db, "a.held").await;
    assert_eq!(stored.len(), 10, "{stored:?}");
    assert!(stored.iter().all(|id| id.starts_with("1-")), "{stored:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_append_of_a_tenant_is_held_as_any_other() {
    let db = TestDb::new().await;
    let owner = db.connect().await;
    let declared = "INSERT INTO tidewire.tenant_settings (tenant, topic_mode, changed_by) VALUES ('strict', 'declared', 'operator')";
    owner.batch_execute(declared).await.unwrap();
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    server
        .api
        .with_token(&token("acme"))
        .append(&json!({"topic": "a.before"}))
        .await;
    proxy.cut();
    is_open(&server).await;
    let [fresh, strict] = ["fresh", "strict"].map(|name| server.api.with_token(&token(name)));
    let event = json!({"topic": "a.fresh", "id": "fresh"});
    // Without a wish to wait it is refused, and with one no longer than that.
    assert_eq!(send(&fresh, None, &event).await.status(), 503);
    let began = Instant::now();
    assert_eq!(send(&fresh, Some("wait=2"), &event).await.status(), 503);
    assert!(
        began.elapsed() >= Duration::from_millis(1_900),
        "{:?}",
        began.elapsed()
    );
    let mut held = JoinSet::new();
    for (who, api) in [fresh, strict].into_iter().enumerate() {
        let event = event.clone();
        held.spawn(async move {
            (
                who,
                send(&api, Some("wait=60"), &event).await.status().as_u16(),
            )
        });
    }
    eventually(PATIENCE, || async {
        let held = server.app.held.count();
        (held >= 2).then_some(()).ok_or(held)
    })
    .await;
    proxy.restore();
    let answers = tokio::time::timeout(PATIENCE, held.join_all()).await;
    let mut answers = answers.unwrap();
    answers.sort_unstable();
    // The settings are asked all the same.
    assert_eq!(answers, [(0, 201), (1, 422)]);
    assert_eq!(ids(&db, "a.fresh").await, ["fresh"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_not_waited_for_while_the_database_is_away() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let arguments = [settings(), vec!["--window-events", "2000"]].concat();
    let server = Server::start_with(&url, &arguments).await;
    let acme = server.api.with_token(&token("acme"));
    let mut newest = String::new();
    for _ in 0..30 {
        let events: Vec<Value> = (0..100).map(|_| json!({"topic": "a.b"})).collect();
        newest = acme.append(&json!(events)).await[0]["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    acme.page("latest", &format!("&at_least={newest}")).await;
    // The line neither answers nor ends.
    proxy.cut();
    is_open(&server).await;
    eventually(PATIENCE, || async {
        (!server.app.hub.tail().is_up)
            .then_some(())
            .ok_or("it is up")
    })
    .await;
    for query in ["after=earliest", "since=2020-01-01T00:00:00Z"] {
        let began = Instant::now();
        let request = acme.request(Method::GET, &format!("/v1/events?{query}&topics=a.b"));
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 503, "{query}");
        assert!(began.elapsed() < AT_ONCE, "{query}: {:?}", began.elapsed());
        let wait: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (3_000..=4_500).contains(&wait),
            "when it is asked again: {wait}"
        );
    }
    // The window answers what it can.
    let page = acme.page(&newest, "").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 99);
    proxy.restore();
    eventually(PATIENCE, || async {
        let (status, page) = acme.try_get("/v1/events?after=earliest&topics=a.b").await;
        (status == 200).then_some(()).ok_or(page)
    })
    .await;
    server.stop().await;
}

/// A statement takes a tenth of a second, and stores one event: what waits is longer in the way the more it is.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_how_long_the_queue_needs() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--batch-events-max", "1"]).await;
    server.api.append(&json!({"topic": "a.before"})).await;
    let slow = "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON tidewire.events FOR EACH STATEMENT EXECUTE FUNCTION public.slow()";
    db.connect().await.batch_execute(slow).await.unwrap();
    let refused = async || {
        let event = json!({"topic": "a.b", "priority": "low"});
        let sending = send(&server.api, None, &event);
        // Who is let in waits as long as the queue is; who is refused hears of it at once.
        let sent = tokio::time::timeout(Duration::from_millis(250), sending).await;
        let refused = sent.ok()?;
        (refused.status() == 503).then(|| -> u64 {
            let value = refused.headers()["retry-after"].to_str().unwrap();
            value.parse().unwrap()
        })
    };
    // Some 20 a second leave; room is again when 63 are left.
    let mut told = Vec::new();
    for depth in [120, 500] {
        let mut flood = JoinSet::new();
        for _ in 0..depth {
            let api = server.api.clone();
            flood.spawn(async move {
                let event = json!({"topic": "a.b", "priority": "low"});
                send(&api, None, &event).await.status().as_u16()
            });
        }
        told.push(eventually(PATIENCE, || async { refused().await.ok_or("not refused") }).await);
        flood.shutdown().await;
        eventually(PATIENCE, || async {
            let (waiting, _) = server.app.appender.waiting();
            (waiting == 0).then_some(()).ok_or(waiting)
        })
        .await;
    }
    assert!((1..=8).contains(&told[0]), "{told:?}");
    assert!((12..=60).contains(&told[1]), "{told:?}");
    assert_eq!(refused().await, None, "drained");
    server.stop().await;
}
