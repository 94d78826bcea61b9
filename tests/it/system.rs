//! `system.*`: who gets it, how often, what stands in it, and what it costs while nobody listens.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::support::client::Ws;
use crate::support::token::{self, WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually};
use crate::tenants::load::login;

const PATIENCE: Duration = Duration::from_secs(30);

async fn watch(api: &Api, topics: &[&str]) -> Ws {
    let mut ws = api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "w", "topics": topics}))
        .await;
    let answer = ws.until("subscribed").await;
    assert_eq!(answer, json!({"type": "subscribed", "id": "w"}));
    ws
}

/// The next frame's events.
async fn beat(ws: &mut Ws) -> Vec<Value> {
    let frame = ws.until("events").await;
    assert_eq!(frame["id"], "w", "{frame}");
    assert_eq!(frame["cursor"], Value::Null, "nothing to resume: {frame}");
    frame["events"].as_array().unwrap().clone()
}

fn recorded_at(event: &Value) -> DateTime<Utc> {
    event["recorded_at"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_come_once_a_second_made_once_for_all() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    let beta = server.api.with_token(&token("beta"));
    let mut both = watch(&acme, &["system.*"]).await;
    let mut health = watch(&beta, &["system.health"]).await;
    let mut metrics = watch(&acme, &["system.metrics"]).await;
    let mut times = Vec::new();
    for _ in 0..3 {
        let events = beat(&mut both).await;
        let topics: Vec<&Value> = events.iter().map(|event| &event["topic"]).collect();
        assert_eq!(topics, ["system.health", "system.metrics"]);
        assert_eq!(recorded_at(&events[0]), recorded_at(&events[1]));
        times.push(recorded_at(&events[0]));
    }
    for pair in times.windows(2) {
        let apart = (pair[1] - pair[0]).num_milliseconds();
        assert!(apart >= 900, "{times:?}");
    }
    // Whoever listens gets the same ones.
    for (ws, topic) in [
        (&mut health, "system.health"),
        (&mut metrics, "system.metrics"),
    ] {
        loop {
            let events = beat(ws).await;
            assert_eq!(events.len(), 1, "{events:?}");
            assert_eq!(events[0]["topic"], topic);
            if recorded_at(&events[0]) >= times[2] {
                assert_eq!(recorded_at(&events[0]), times[2]);
                break;
            }
        }
    }
    let events = beat(&mut both).await;
    let (health, metrics) = (&events[0]["data"], &events[1]["data"]);
    assert_eq!(health["health"], 100, "{health}");
    assert!(health["database"]["postgres"].is_string(), "{health}");
    assert_eq!(metrics["tidewire_tail_up"], 1.0, "{metrics}");
    assert_eq!(
        metrics["tidewire_connections{transport=\"websocket\"}"],
        3.0
    );
    assert_eq!(db.log().await.len(), 0, "nothing is stored");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_while_nobody_listens() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let uptime = || async {
        let status = server.api.get("/v1/status").await;
        status["uptime_s"].as_u64().unwrap()
    };
    let seconds_pass = || async {
        let begun = uptime().await;
        eventually(PATIENCE, || async {
            let now = uptime().await;
            (now >= begun + 3).then_some(()).ok_or(now)
        })
        .await;
    };
    seconds_pass().await;
    assert_eq!(server.app.system.made(), 0);
    let mut ws = watch(&server.api, &["system.*"]).await;
    beat(&mut ws).await;
    ws.send(json!({"type": "unsubscribe", "id": "w"})).await;
    ws.until("unsubscribed").await;
    // One may be under way.
    let made = server.app.system.made() + 1;
    seconds_pass().await;
    assert!(server.app.system.made() <= made);
    drop(ws);
    // And a socket that goes takes its subscriptions along.
    let mut ws = watch(&server.api, &["system.*"]).await;
    beat(&mut ws).await;
    drop(ws);
    eventually(PATIENCE, || async {
        let open = server.app.connections();
        (open == 0).then_some(()).ok_or(open)
    })
    .await;
    let made = server.app.system.made() + 1;
    seconds_pass().await;
    assert!(server.app.system.made() <= made);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_as_a_subscription_and_is_for_administrators() {
    let db = TestDb::new().await;
    let arguments = [WITH_TOKENS, &["--tenant-subscriptions-max", "2"]].concat();
    let server = Server::start_with(&db.url, &arguments).await;
    let mut claims = token::claims("acme");
    claims.role = tidewire::access::Role::Dashboard;
    let mut ws = server.api.with_token(&token::issue(&claims)).ws().await;
    for topics in [json!(["system.*"]), json!(["system.health"])] {
        ws.send(json!({"type": "subscribe", "id": "w", "topics": topics}))
            .await;
        let refused = ws.until("error").await;
        assert_eq!(
            (&refused["code"], &refused["id"]),
            (&json!("forbidden"), &json!("w"))
        );
    }
    // Administrators need no topics.
    claims.role = tidewire::access::Role::Admin;
    (claims.read, claims.write) = (vec![], vec![]);
    let mut ws = watch(
        &server.api.with_token(&token::issue(&claims)),
        &["system.*"],
    )
    .await;
    beat(&mut ws).await;
    for (more, field) in [
        (json!({"after": "latest"}), "after"),
        (json!({"subjects": ["a"]}), "subjects"),
        (json!({"conflate_ms": 5}), "conflate_ms"),
        (json!({"topics": ["system.*", "deal.*"]}), "topics"),
        (json!({"id": "w"}), "id"),
    ] {
        let mut frame = json!({"type": "subscribe", "id": "x", "topics": ["system.*"]});
        for (name, value) in more.as_object().unwrap() {
            frame[name] = value.clone();
        }
        ws.send(frame.clone()).await;
        let refused = ws.until("error").await;
        assert_eq!(refused["code"], "invalid-parameter", "{frame}");
        assert!(
            refused["detail"].as_str().unwrap().contains(field),
            "{refused}"
        );
    }
    ws.send(json!({"type": "subscribe", "id": "x", "topics": ["system.health"]}))
        .await;
    ws.until("subscribed").await;
    ws.send(json!({"type": "subscribe", "id": "y", "topics": ["system.health"]}))
        .await;
    assert_eq!(ws.until("error").await["code"], "rate-limited");
    // A credential that administers nothing takes the place of the other.
    claims.role = tidewire::access::Role::Agent;
    ws.send(json!({"type": "auth", "token": token::issue(&claims)}))
        .await;
    for id in ["w", "x"] {
        let ended = ws.until("error").await;
        assert_eq!(
            (&ended["code"], &ended["id"]),
            (&json!("forbidden"), &json!(id))
        );
    }
    ws.until("notice").await;
    let made = server.app.system.made() + 1;
    // The places are free again.
    let mut other = watch(&server.api.with_token(&token("acme")), &["system.*"]).await;
    while server.app.system.made() <= made {
        beat(&mut other).await;
    }
    ws.send(json!({"type": "ping", "timestamp": 1})).await;
    let next = ws.next().await.unwrap().unwrap();
    assert_eq!(next["type"], "pong", "nothing more comes: {next}");
    server.stop().await;
}

/// As with `/v1/status`: what a tenant's role is called, and what its application is, is its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_learns_the_name_that_another_has_given() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let role = login(&db, "acme", "tidewire_writer").await;
    let open = db.connect_as(&role, &role).await;
    let begin = "SET application_name = 'acme payroll'; BEGIN; SELECT tidewire.append('deal.won')";
    open.batch_execute(begin).await.unwrap();
    let mut acme = watch(&server.api.with_token(&token("acme")), &["system.*"]).await;
    let mut beta = watch(&server.api.with_token(&token("beta")), &["system.*"]).await;
    let is_issue = |event: &Value| {
        let issues = event["data"]["issues"].as_array().unwrap();
        issues.iter().any(|issue| issue["code"] == "open-writer")
    };
    // Until it is an issue, whose text names the application as well.
    loop {
        let (own, others) = (beat(&mut acme).await, beat(&mut beta).await);
        let others_text = json!(others).to_string();
        assert!(!others_text.contains("payroll"), "{others_text}");
        assert!(!others_text.contains(&role), "{others_text}");
        let own_text = json!(own).to_string();
        if is_issue(&own[0]) && is_issue(&others[0]) {
            let holder = &own[0]["data"]["log"]["held_by"];
            assert_eq!(holder["application"], "acme payroll", "{own_text}");
            assert_eq!(own_text.matches("payroll").count(), 2, "{own_text}");
            assert!(others[0]["data"]["log"]["held_by"]["pid"].is_number());
            break;
        }
    }
    open.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

/// They would be told from those of the server by nobody.
#[tokio::test]
async fn nobody_stores_events_under_system() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    for topic in ["system.health", "system.x", "system"] {
        let (status, problem) = server.api.try_append(&json!({"topic": topic})).await;
        let kind = &problem["type"];
        assert_eq!(
            (status.as_u16(), kind),
            (403, &json!("/problems/forbidden-topic")),
            "{topic}"
        );
        let path = format!("/v1/topics/{topic}");
        let declare = server
            .api
            .request(reqwest::Method::PUT, &path)
            .json(&json!({}));
        assert_eq!(declare.send().await.unwrap().status(), 400, "{topic}");
        let append = format!("SELECT tidewire.append('{topic}', tenant => 'dev')");
        let refused = db.connect().await.batch_execute(&append).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "TW403", "{topic}");
    }
    server.api.append(&json!({"topic": "systems.fine"})).await;
    let append = "SELECT tidewire.append('systems.fine', tenant => 'dev')";
    db.connect().await.batch_execute(append).await.unwrap();
    server.stop().await;
}
