//! The breaker around the database: who is refused, who is held, who goes on, and what it takes to close it.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tidewire::log::Trouble;

use crate::metrics::text;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Proxy, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(20);
/// At once, on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A recovery so long that nothing but who hears of the database, or resets it, ends it in a test.
const LONG: &[&str] = &["--breaker-failures", "3", "--breaker-recovery-s", "3600"];

/// A database that answers, and stores nothing for a server.
const FULL_DISK: &str = "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF current_setting('application_name') LIKE 'tidewire append%' THEN
            RAISE 'no space left' USING ERRCODE = '53100'; END IF; RETURN NULL; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON tidewire.events FOR EACH STATEMENT EXECUTE FUNCTION public.full_disk()";

async fn send(api: &Api, prefer: Option<&str>, event: &Value) -> Response {
    let mut request = api.request(Method::POST, "/v1/events").json(event);
    if let Some(prefer) = prefer {
        request = request.header("prefer", prefer);
    }
    request.send().await.unwrap()
}

fn retry_after(response: &Response) -> Option<u64> {
    let value = response.headers().get("retry-after")?;
    value.to_str().ok()?.parse().ok()
}

fn state(server: &Server) -> &'static str {
    server.app.appender.breaker().state().as_str()
}

async fn until(server: &Server, wanted: &str) {
    eventually(PATIENCE, || async {
        let now = state(server);
        (now == wanted).then_some(()).ok_or(now)
    })
    .await;
}

/// The tenant's ids of a topic.
async fn ids(db: &TestDb, topic: &str) -> Vec<String> {
    let select = "SELECT id FROM tidewire.events WHERE topic = $1 ORDER BY seq";
    let rows = db.connect().await.query(select, &[&topic]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_open_writers_are_refused_at_once_and_readers_stay() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, LONG).await;
    server
        .api
        .append(&json!({"topic": "a.before", "id": "before"}))
        .await;
    let mut ws = server.api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "s", "topics": ["a.*"], "after": "earliest"}))
        .await;
    ws.until("live").await;
    proxy.cut();
    // Nobody writes: the tail finds out by itself, and says so.
    let notice = ws.until("notice").await;
    assert_eq!(notice["code"], "database-away", "{notice}");
    assert!(notice["retry_after_ms"].as_u64().unwrap() > 3_500_000);
    assert_eq!(state(&server), "open");
    let began = Instant::now();
    let refused = send(&server.api, None, &json!({"topic": "a.refused"})).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(refused.status(), 503);
    // What is left of an hour, and a quarter more at most.
    let wait = retry_after(&refused).unwrap();
    assert!((3_500..=4_500).contains(&wait), "{wait}");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/unavailable", "{problem}");
    // What the window holds is read; a socket and its subscription stay.
    let page = server.api.get("/v1/events?after=earliest").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "{page}");
    ws.send(json!({"type": "ping", "timestamp": 7})).await;
    ws.until("pong").await;
    ws.send(json!({"type": "append", "ref": "r", "events": [{"topic": "a.refused"}]}))
        .await;
    let error = ws.until("error").await;
    assert_eq!(error["code"], "unavailable", "{error}");
    // The tail hears of the database: the breaker need not wait out its hour.
    proxy.restore();
    until(&server, "half_open").await;
    assert_eq!(ws.until("notice").await["code"], "database-back");
    let stored = send(
        &server.api,
        None,
        &json!({"topic": "a.after", "id": "after"}),
    )
    .await;
    assert_eq!(stored.status(), 201);
    assert_eq!(state(&server), "closed");
    assert_eq!(ws.until("events").await["events"][0]["id"], "after");
    assert_eq!(ids(&db, "a.refused").await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_prefers_to_wait_is_held_and_stored_once_it_closes() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, LONG).await;
    server.api.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    until(&server, "open").await;
    let mut held = tokio::task::JoinSet::new();
    for n in 0..20 {
        let api = server.api.clone();
        held.spawn(async move {
            let event = json!({"topic": "a.held", "id": format!("held-{n}")});
            send(&api, Some("wait=60"), &event).await.status()
        });
    }
    // Who prefers to wait for a second waits for no longer, and nothing of it is stored later.
    let began = Instant::now();
    let given_up = send(&server.api, Some("wait=1"), &json!({"topic": "a.given.up"})).await;
    assert_eq!(given_up.status(), 503);
    assert!(began.elapsed() >= Duration::from_secs(1));
    eventually(PATIENCE, || async {
        let (waiting, _) = server.app.appender.waiting();
        (waiting >= 20).then_some(()).ok_or(waiting)
    })
    .await;
    proxy.restore();
    while let Some(status) = held.join_next().await {
        assert_eq!(status.unwrap(), 201);
    }
    assert_eq!(ids(&db, "a.held").await.len(), 20);
    assert_eq!(ids(&db, "a.given.up").await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_when_it_opens_are_answered_then() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let settings = ["--breaker-failures", "40", "--breaker-recovery-s", "3600"];
    let server = Server::start_with(&url, &settings).await;
    server.api.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..200 {
        let api = server.api.clone();
        let prefer = (n % 2 == 0).then_some("wait=60");
        waiting.spawn(async move {
            let event = json!({"topic": "a.b", "id": format!("e-{n}")});
            (prefer, send(&api, prefer, &event).await)
        });
    }
    until(&server, "open").await;
    let began = Instant::now();
    for _ in 0..100 {
        let (prefer, refused) = waiting.join_next().await.unwrap().unwrap();
        assert_eq!(prefer, None, "who prefers to wait waits");
        assert_eq!(refused.status(), 503);
        assert!(retry_after(&refused).is_some());
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    proxy.restore();
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().1.status(), 201);
    }
    assert_eq!(ids(&db, "a.b").await.len(), 100);
    server.stop().await;
}

/// Reading goes on while the database takes nothing: a broken disk, a full one, or this function.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_nothing_is_tried_by_probes_and_reset_by_operators() {
    let db = TestDb::new().await;
    let settings = [
        WITH_TOKENS,
        &["--breaker-failures", "3", "--breaker-recovery-s", "1"],
        &["--operator-tenant", "acme"],
    ]
    .concat();
    let server = Server::start_with(&db.url, &settings).await;
    let owner = db.connect().await;
    owner.batch_execute(FULL_DISK).await.unwrap();
    let acme = server.api.with_token(&token::token("acme"));
    let mut ws = acme.ws().await;
    let refused = send(&acme, None, &json!({"topic": "a.b"})).await;
    assert_eq!(refused.status(), 503);
    until(&server, "open").await;
    let metrics = |text: &str, line: &str| text.lines().any(|one| one == line);
    let now = text(&acme).await;
    assert!(
        metrics(&now, "tidewire_breaker_state{state=\"open\"} 1"),
        "{now}"
    );
    // The tail reads all the while, which closes nothing; the first that is held for the recovery is the probe.
    let opened = |text: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("tidewire_breaker_opened_total "));
        line.unwrap().parse().unwrap()
    };
    let before = opened(&now);
    let probe = send(&acme, Some("wait=5"), &json!({"topic": "a.b"})).await;
    assert_eq!(probe.status(), 503);
    let after = opened(&text(&acme).await);
    assert!(after > before, "{before} {after}");
    // One a second, not one after the other.
    assert!(after - before <= 7.0, "{before} {after}");
    // Whoever listens is told of what is so, not of what is tried.
    assert_eq!(ws.until("notice").await["code"], "writes-fail");
    ws.send(json!({"type": "ping", "timestamp": 1})).await;
    let next = ws.next().await.unwrap().unwrap();
    assert_eq!(next["type"], "pong", "{next}");
    owner
        .batch_execute("DROP TRIGGER full_disk ON tidewire.events")
        .await
        .unwrap();
    let beta = server.api.with_token(&token::token("beta"));
    let reset = |api: &Api| api.request(Method::POST, "/v1/admin/breaker/reset").send();
    assert_eq!(reset(&beta).await.unwrap().status(), 403);
    let done = reset(&acme).await.unwrap();
    assert_eq!(done.status(), 200);
    assert_eq!(done.json::<Value>().await.unwrap()["state"], "closed");
    assert_eq!(ws.until("notice").await["code"], "database-back");
    assert_eq!(
        send(&acme, None, &json!({"topic": "a.b"})).await.status(),
        201
    );
    eventually(PATIENCE, || async {
        let told = ids(&db, "tidewire.audit.breaker.reset").await.len();
        (told == 1).then_some(()).ok_or(told)
    })
    .await;
    server.stop().await;
}

/// What readers are told is what they meet: reading goes on, or it does not, whatever becomes of what is written.
#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_whether_the_database_is_away_or_takes_nothing() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, LONG).await;
    server
        .api
        .append(&json!({"topic": "a.before", "id": "before"}))
        .await;
    let mut ws = server.api.ws().await;
    ws.subscribe("s", &["a.*"], "latest").await;
    let owner = db.connect().await;
    owner.batch_execute(FULL_DISK).await.unwrap();
    let event = json!({"topic": "a.b"});
    assert_eq!(send(&server.api, None, &event).await.status(), 503);
    let notice = ws.until("notice").await;
    assert_eq!(notice["code"], "writes-fail", "{notice}");
    assert!(notice["retry_after_ms"].as_u64().unwrap() > 3_500_000);
    let shown = server.api.get("/v1/status").await;
    assert_eq!(shown["breaker"]["trouble"], "writes_fail", "{shown}");
    // It is read all the while, also what somebody else has stored, and that does not open it again and again.
    let stored = "SELECT tidewire.append('a.sql', id => 'one', tenant => 'dev')";
    owner.batch_execute(stored).await.unwrap();
    assert_eq!(ws.until("events").await["events"][0]["id"], "one");
    let since = server.api.page("earliest", "&topics=a.*").await;
    assert_eq!(since["events"].as_array().unwrap().len(), 2, "{since}");
    assert_eq!(state(&server), "open");
    // Now it is away as well.
    proxy.cut();
    let notice = ws.until("notice").await;
    assert_eq!(notice["code"], "database-away", "{notice}");
    assert_eq!(server.app.appender.breaker().trouble(), Some(Trouble::Away));
    let mut late = server.api.ws().await;
    assert_eq!(late.until("notice").await["code"], "database-away");
    // It is heard of again, and tried: what is written fails as before.
    proxy.restore();
    assert_eq!(ws.until("notice").await["code"], "database-back");
    assert_eq!(send(&server.api, None, &event).await.status(), 503);
    assert_eq!(ws.until("notice").await["code"], "writes-fail");
    owner
        .batch_execute("DROP TRIGGER full_disk ON tidewire.events")
        .await
        .unwrap();
    server.app.appender.breaker().reset();
    assert_eq!(ws.until("notice").await["code"], "database-back");
    assert_eq!(send(&server.api, None, &event).await.status(), 201);
    server.stop().await;
}
