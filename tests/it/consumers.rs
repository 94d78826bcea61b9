//! Consumers that operators pause: they take no step, on whichever server, and then go on where they were.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidewire::access::{Claims, Role};

use crate::metrics::text;
use crate::support::client::json_of;

use crate::support::token::{WITH_TOKENS, claims, issue, token};
use crate::support::{Api, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const OPERATED: &[&str] = &["--operator-tenant", "acme"];

/// Who paused and resumed it, as the log says it.
const TOLD: &str = "
    SELECT count(*) FROM tidewire.events WHERE tenant = 'acme' AND topic LIKE 'tidewire.audit.admin.consumer.%'
       AND source = 'test' AND data = jsonb_build_object('by', 'test', 'role', 'admin', 'did', jsonb_build_object('consumer', 'watch'))";

async fn act(api: &Api, action: &str) -> (StatusCode, Value) {
    let path = format!("/v1/admin/consumers/{action}");
    json_of(api.request(Method::POST, &path).send().await.unwrap()).await
}

async fn start(db: &TestDb) -> (Server, Api) {
    let server = Server::start_with(&db.url, &[WITH_TOKENS, OPERATED].concat()).await;
    let acme = server.api.with_token(&token("acme"));
    (server, acme)
}

async fn until_status(api: &Api, is_wanted: impl Fn(&Value) -> bool) {
    eventually(PATIENCE, || async {
        let status = api.get("/v1/status").await["consumers"][0].clone();
        is_wanted(&status).then_some(()).ok_or(status)
    })
    .await;
}

async fn place(db: &TestDb) -> i64 {
    let place = "SELECT seq FROM tidewire.consumers WHERE name = 'watch'";
    db.connect()
        .await
        .query_one(place, &[])
        .await
        .unwrap()
        .get(0)
}

async fn count(db: &TestDb, query: &str) -> i64 {
    db.connect()
        .await
        .query_one(query, &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_consumer_that_is_paused_keeps_its_place_everywhere_and_goes_on_from_it() {
    let db = TestDb::new().await;
    let (first, acme) = start(&db).await;
    let (second, other) = start(&db).await;
    let watch = json!({"topics": ["agent.heartbeat.*"], "within_s": 600});
    let request = acme.request(Method::PUT, "/v1/watches/w").json(&watch);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let beat = async |api: &Api, n: usize| {
        let subject = format!("s-{n}");
        api.append(&json!({"topic": "agent.heartbeat.ok", "subject": subject}))
            .await;
    };
    let watched = "SELECT count(*) FROM tidewire.watched";
    beat(&acme, 0).await;
    eventually(PATIENCE, || async {
        let now = count(&db, watched).await;
        (now == 1).then_some(()).ok_or(now)
    })
    .await;
    // By the server that does not run it, perhaps.
    let (status, answer) = act(&other, "watch/pause").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["is_paused"], &answer["paused_by"]),
        (&json!(true), &json!("test"))
    );
    let since = answer["paused_at"].clone();
    let at = place(&db).await;
    for n in 1..=50 {
        beat(&acme, n).await;
    }
    for api in [&acme, &other] {
        until_status(api, |consumer| consumer["is_paused"] == true).await;
        let series = text(api).await;
        let line = "tidewire_consumer_paused{consumer=\"watch\"} 1";
        assert!(series.lines().any(|one| one == line), "{series}");
    }
    // The one that runs it has seen what it leaves.
    eventually(PATIENCE, || async {
        let mut lags = Vec::new();
        for api in [&acme, &other] {
            let status = api.get("/v1/status").await["consumers"][0].clone();
            lags.push(status["lag_events"].as_i64());
        }
        lags.iter()
            .any(|lag| lag >= &Some(50))
            .then_some(())
            .ok_or(lags)
    })
    .await;
    // What it has not passed is named, to administrators.
    let behind = "/v1/audit?consumer=watch&topics=agent.heartbeat.*";
    let audit = acme.get(behind).await;
    let missing = audit["consumer"]["missing"].as_array().unwrap().len();
    assert_eq!((&audit["count"], missing), (&json!(50), 50), "{audit}");
    assert_eq!(audit["consumer"]["is_paused"], true);
    assert_eq!(acme.try_get("/v1/audit?consumer=none").await.0, 400);
    let reader = issue(&Claims {
        role: Role::Dashboard,
        ..claims("acme")
    });
    assert_eq!(first.api.with_token(&reader).try_get(behind).await.0, 403);
    // Once more changes nothing, and a restart does not either.
    assert_eq!(act(&acme, "watch/pause").await.1["paused_at"], since);
    first.stop().await;
    second.stop().await;
    let (third, acme) = start(&db).await;
    until_status(&acme, |consumer| {
        consumer["is_paused"] == true && consumer["is_active"] == true
    })
    .await;
    assert_eq!((place(&db).await, count(&db, watched).await), (at, 1));
    let (status, answer) = act(&acme, "watch/resume").await;
    assert_eq!(
        (status.as_u16(), &answer["is_paused"]),
        (200, &json!(false))
    );
    eventually(PATIENCE, || async {
        let now = count(&db, watched).await;
        (now == 51).then_some(()).ok_or(now)
    })
    .await;
    eventually(PATIENCE, || async {
        let audit = acme.get(behind).await;
        (audit["consumer"]["missing"] == json!([]))
            .then_some(())
            .ok_or(audit)
    })
    .await;
    let stalled = "SELECT count(*) FROM tidewire.events WHERE source = 'tidewire.watch'";
    assert_eq!(count(&db, stalled).await, 0, "nobody was silent");
    until_status(&acme, |consumer| consumer["is_paused"] == false).await;
    // With each answer, and not some time after it.
    assert_eq!(count(&db, TOLD).await, 3);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_pauses_a_consumer_without_the_log_saying_so() {
    let db = TestDb::new().await;
    let (server, acme) = start(&db).await;
    let client = db.connect().await;
    // What says it cannot be stored.
    let refuse = "ALTER TABLE tidewire.events ADD CONSTRAINT untold CHECK (topic <> 'tidewire.audit.admin.consumer.paused')";
    client.batch_execute(refuse).await.unwrap();
    let (status, answer) = act(&acme, "watch/pause").await;
    assert!(status.is_server_error(), "{status} {answer}");
    let paused = "SELECT count(*) FROM tidewire.consumers WHERE paused_at IS NOT NULL";
    assert_eq!((count(&db, paused).await, count(&db, TOLD).await), (0, 0));
    let allow = "ALTER TABLE tidewire.events DROP CONSTRAINT untold";
    client.batch_execute(allow).await.unwrap();
    assert_eq!(act(&acme, "watch/pause").await.0, 200);
    assert_eq!((count(&db, paused).await, count(&db, TOLD).await), (1, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_pause_and_only_what_there_is() {
    let db = TestDb::new().await;
    let (server, acme) = start(&db).await;
    let beta = server.api.with_token(&token("beta"));
    assert_eq!(act(&beta, "watch/pause").await.0, 403);
    let (status, answer) = act(&acme, "nothing/pause").await;
    assert_eq!(
        (status.as_u16(), &answer["type"]),
        (404, &json!("/problems/not-found"))
    );
    assert_eq!(
        acme.get("/v1/status").await["consumers"][0]["is_paused"],
        false
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_watch_knows_of_a_subject_is_shown_and_erased() {
    let db = TestDb::new().await;
    let (server, acme) = start(&db).await;
    for name in ["one", "two"] {
        let watch = json!({"topics": ["agent.heartbeat.*"], "within_s": 600});
        let request = acme
            .request(Method::PUT, &format!("/v1/watches/{name}"))
            .json(&watch);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let beat = json!({"topic": "agent.heartbeat.ok", "subject": "person-7"});
    let cursor = acme.append(&beat).await[0]["cursor"].clone();
    acme.append(&json!({"topic": "agent.heartbeat.ok", "subject": "person-8"}))
        .await;
    let held = eventually(PATIENCE, || async {
        let held = acme.get("/v1/subjects/person-7").await["watched"].clone();
        (held.as_array().unwrap().len() == 2)
            .then_some(held.clone())
            .ok_or(held)
    })
    .await;
    assert_eq!(
        (&held[0]["watch"], &held[1]["watch"]),
        (&json!("one"), &json!("two"))
    );
    for one in held.as_array().unwrap() {
        assert_eq!(
            (&one["last_cursor"], &one["is_stalled"]),
            (&cursor, &json!(false))
        );
        assert!(
            one["last_seen_at"].is_string() && one["since"].is_string(),
            "{one}"
        );
    }
    // Of another tenant's subject of this name nothing is known.
    let beta = server.api.with_token(&token("beta"));
    assert_eq!(
        beta.get("/v1/subjects/person-7").await["watched"],
        json!([])
    );
    let erase = acme.request(Method::DELETE, "/v1/subjects/person-7");
    assert_eq!(erase.send().await.unwrap().status(), 200);
    assert_eq!(
        acme.get("/v1/subjects/person-7").await["watched"],
        json!([])
    );
    assert_eq!(
        acme.get("/v1/subjects/person-8").await["watched"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    server.stop().await;
}
