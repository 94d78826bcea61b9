//! What a tenant decides about the events that it takes: declared topics, schemas, consent; by whichever way they come.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::json_of;
use crate::support::credentials::admin;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Server, TestDb, eventually};

/// What is decided anywhere is in force everywhere within this time.
const PROMISED: Duration = Duration::from_secs(1);

async fn ask(api: &Api, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    json_of(api.request(method, path).json(body).send().await.unwrap()).await
}

async fn set(api: &Api, settings: &Value) {
    let (status, answer) = ask(api, Method::PATCH, "/v1/settings", settings).await;
    assert_eq!(status, 200, "{answer}");
}

async fn declare(api: &Api, pattern: &str, declaration: &Value) {
    let path = format!("/v1/topics/{pattern}");
    let (status, answer) = ask(api, Method::PUT, &path, declaration).await;
    assert_eq!(status, 204, "{answer}");
}

/// Writes one event by each way; each way's name and the code of its refusal, if it was refused.
async fn by_each_way(api: &Api, event: &Value) -> Vec<(&'static str, Option<String>)> {
    let code = |kind: &Value| {
        kind.as_str()
            .map(|kind| kind.trim_start_matches("/problems/").to_owned())
    };
    let mut told = Vec::new();
    let (_, answer) = api.try_append(event).await;
    told.push(("json", code(&answer["type"])));
    let (_, answer) = api.try_append(&json!([event, event])).await;
    told.push(("array", code(&answer["type"])));
    let post = |media: &str, body: Vec<u8>| {
        let request = api
            .request(Method::POST, "/v1/events")
            .header("content-type", media);
        async { request.body(body).send().await.unwrap() }
    };
    let packed = rmp_serde::to_vec_named(event).unwrap();
    let (_, answer) = json_of(post("application/msgpack", packed).await).await;
    told.push(("msgpack", code(&answer["type"])));
    let cloud = json!({"specversion": "1.0", "id": uuid::Uuid::now_v7(), "source": "s", "type": event["topic"], "data": event["data"]});
    if event.get("gdpr").is_none() {
        let body = cloud.to_string().into_bytes();
        let (_, answer) = json_of(post("application/cloudevents+json", body).await).await;
        told.push(("cloudevents", code(&answer["type"])));
    }
    let lines = post("application/x-ndjson", format!("{event}\n").into_bytes()).await;
    let line: Value = serde_json::from_str(lines.text().await.unwrap().trim()).unwrap();
    told.push(("ndjson", code(&line["error"]["type"])));
    let mut ws = api.ws().await;
    ws.send(json!({"type": "append", "ref": "r", "events": event}))
        .await;
    let frame = ws.next().await.unwrap().unwrap();
    told.push(("socket", frame["code"].as_str().map(str::to_owned)));
    told
}

async fn refused(api: &Api, event: &Value, code: &str) {
    for (way, told) in by_each_way(api, event).await {
        assert_eq!(told.as_deref(), Some(code), "{way}: {event}");
    }
}

async fn stored(api: &Api, event: &Value) {
    for (way, told) in by_each_way(api, event).await {
        assert_eq!(told, None, "{way}: {event}");
    }
}

#[tokio::test]
async fn in_declared_mode_nothing_else_is_written_by_any_way() {
    let db = TestDb::new().await;
    let (a, b) = (
        Server::start_with(&db.url, WITH_TOKENS).await,
        Server::start_with(&db.url, WITH_TOKENS).await,
    );
    let (acme, beta) = (admin(&a, "acme"), admin(&a, "beta"));
    let event = json!({"topic": "deal.stage.won"});
    stored(&acme, &event).await;
    declare(
        &acme,
        "deal.*",
        &json!({"description": "What becomes of deals"}),
    )
    .await;
    stored(&acme, &json!({"topic": "agent.x"})).await;
    set(&acme, &json!({"topic_mode": "declared"})).await;
    stored(&acme, &event).await;
    refused(&acme, &json!({"topic": "agent.x"}), "undeclared-topic").await;
    let (status, _) = ask(&acme, Method::PUT, "/v1/agents/a/state", &json!({})).await;
    assert_eq!(status, 422);
    let (status, _) = ask(
        &acme,
        Method::POST,
        "/v1/agents/a/commands",
        &json!({"action": "x"}),
    )
    .await;
    assert_eq!(status, 422);
    stored(&beta, &json!({"topic": "agent.x"})).await;
    // At the other server within a second, and in SQL at once.
    let there = admin(&b, "acme");
    eventually(PROMISED, || async {
        let (status, answer) = there.try_append(&json!({"topic": "agent.x"})).await;
        (status == 422).then_some(()).ok_or(answer)
    })
    .await;
    refused(&there, &json!({"topic": "agent.x"}), "undeclared-topic").await;
    let sql = db.connect().await;
    let append = "SELECT event_id FROM tidewire.append($1, tenant => $2)";
    let code = |error: tokio_postgres::Error| error.code().unwrap().code().to_owned();
    assert!(
        sql.query(append, &[&"deal.stage.won", &"acme"])
            .await
            .is_ok()
    );
    assert!(sql.query(append, &[&"agent.x", &"beta"]).await.is_ok());
    let error = sql.query(append, &[&"agent.x", &"acme"]).await.unwrap_err();
    assert_eq!(code(error), "TW422");
    let listed = acme.get("/v1/topics").await;
    assert_eq!(listed["topics"][0]["pattern"], "deal.*");
    assert_eq!(listed["topics"][0]["changed_by"], "test");
    let withdraw = acme.request(Method::DELETE, "/v1/topics/deal.*");
    assert_eq!(withdraw.send().await.unwrap().status(), 204);
    refused(&acme, &event, "undeclared-topic").await;
    let again = acme.request(Method::DELETE, "/v1/topics/deal.*");
    assert_eq!(again.send().await.unwrap().status(), 404);
    set(&acme, &json!({"topic_mode": "open"})).await;
    stored(&acme, &event).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn data_that_breaks_its_schema_is_refused_by_any_way_and_not_shown() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = admin(&server, "acme");
    let schema = json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}});
    declare(&api, "deal.*", &json!({"schema": schema})).await;
    declare(
        &api,
        "deal.won",
        &json!({"schema": {"properties": {"amount": {"minimum": 10}}}}),
    )
    .await;
    stored(&api, &json!({"topic": "deal.lost", "data": {"amount": 5}})).await;
    stored(&api, &json!({"topic": "deal.won", "data": {"amount": 11}})).await;
    stored(&api, &json!({"topic": "other.won", "data": "anything"})).await;
    for (event, why) in [
        (json!({"topic": "deal.lost"}), "no data"),
        (
            json!({"topic": "deal.lost", "data": {"amount": "SENTINEL"}}),
            "another type",
        ),
        (
            json!({"topic": "deal.won", "data": {"amount": 9}}),
            "the second schema of two",
        ),
    ] {
        for (way, told) in by_each_way(&api, &event).await {
            assert_eq!(told.as_deref(), Some("schema-violation"), "{why}: {way}");
        }
    }
    let bytes = json!({"topic": "deal.lost", "data_base64": "AAA=", "content_type": "image/png"});
    let (_, problem) = api.try_append(&bytes).await;
    assert_eq!(problem["type"], "/problems/schema-violation");
    let mixed = json!([
        {"topic": "deal.won", "data": {"amount": 10}},
        {"topic": "deal.lost", "data": {"amount": "SENTINEL"}},
        {"topic": "deal.lost", "data": {}},
    ]);
    let (status, problem) = api.try_append(&mixed).await;
    assert_eq!(status, 422);
    let at: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["index"], &one["field"]))
        .collect();
    assert_eq!(
        at,
        [
            (&json!(1), &json!("data/amount")),
            (&json!(2), &json!("data"))
        ]
    );
    assert!(!problem.to_string().contains("SENTINEL"), "{problem}");
    // In SQL it cannot be checked: refused, unless the tenant says otherwise.
    let sql = db.connect().await;
    let append =
        "SELECT event_id FROM tidewire.append('deal.lost', '{\"amount\": 1}', tenant => 'acme')";
    let error = sql.query(append, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "TW422");
    declare(
        &api,
        "deal.*",
        &json!({"schema": schema, "in_sql": "unchecked"}),
    )
    .await;
    assert!(sql.query(append, &[]).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn events_without_consent_are_refused_or_stored_without_data() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = admin(&server, "acme");
    let without = [
        json!({"topic": "person.moved", "data": "SENTINEL"}),
        json!({"topic": "person.moved", "data": "SENTINEL", "gdpr": {"consent": false}}),
        json!({"topic": "person.moved", "data": "SENTINEL", "gdpr": {"consent": "true"}}),
        json!({"topic": "person.moved", "data": "SENTINEL", "gdpr": {"basis": "contract"}}),
    ];
    let with = json!({"topic": "person.moved", "data": "kept", "gdpr": {"consent": true}});
    set(
        &api,
        &json!({"consent": "require", "consent_topics": ["person.*"]}),
    )
    .await;
    stored(&api, &with).await;
    stored(&api, &json!({"topic": "machine.moved", "data": 1})).await;
    for event in &without {
        refused(&api, event, "consent-required").await;
    }
    let sql = db.connect().await;
    let append = "SELECT duplicate FROM tidewire.append('person.moved', '\"SENTINEL\"', id => 'sql', gdpr => $1, tenant => 'acme')";
    let error = sql.query(append, &[&None::<Value>]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "TW422");
    set(&api, &json!({"consent": "withhold"})).await;
    for event in &without {
        stored(&api, event).await;
    }
    assert!(
        sql.query(append, &[&json!({"consent": false})])
            .await
            .is_ok()
    );
    // A retry is one, though nothing of its data was kept.
    let retried = json!({"topic": "person.moved", "data": "SENTINEL", "id": "once"});
    assert_eq!(api.append(&retried).await[0]["duplicate"], false);
    assert_eq!(api.append(&retried).await[0]["duplicate"], true);
    let again = sql.query_one(append, &[&json!({"consent": false})]).await;
    assert!(again.unwrap().get::<_, bool>(0), "a retry in SQL");
    let kept = "SELECT count(*) FILTER (WHERE e::text LIKE '%SENTINEL%'), count(*) FILTER (WHERE e.data = '\"kept\"') FROM tidewire.events AS e";
    let row = sql.query_one(kept, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    assert!(row.get::<_, i64>(1) > 0);
    server.stop().await;
}

#[tokio::test]
async fn settings_are_for_administrators_of_the_tenant_and_their_changes_are_told() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let agent = server
        .api
        .with_token(&token::issue(&tidewire::access::Claims {
            role: tidewire::access::Role::Agent,
            ..token::claims("acme")
        }));
    for (method, path) in [
        (Method::GET, "/v1/settings"),
        (Method::PATCH, "/v1/settings"),
        (Method::GET, "/v1/topics"),
        (Method::PUT, "/v1/topics/a"),
        (Method::DELETE, "/v1/topics/a"),
    ] {
        assert_eq!(ask(&agent, method, path, &json!({})).await.0, 403, "{path}");
    }
    declare(&acme, "deal.*", &json!({})).await;
    set(&acme, &json!({"topic_mode": "declared"})).await;
    assert_eq!(beta.get("/v1/settings").await["topic_mode"], "open");
    assert_eq!(beta.get("/v1/topics").await["topics"], json!([]));
    let (status, _) = ask(&beta, Method::DELETE, "/v1/topics/deal.*", &json!({})).await;
    assert_eq!(status, 404);
    let (status, _) = ask(&acme, Method::DELETE, "/v1/topics/deal.*", &json!({})).await;
    assert_eq!(status, 204);
    let told = eventually(PROMISED, || async {
        let page = acme.get("/v1/events?topics=tidewire.audit.*").await;
        let events = page["events"].as_array().unwrap().clone();
        (events.len() == 3).then_some(events.clone()).ok_or(events)
    })
    .await;
    let topics: Vec<_> = told
        .iter()
        .map(|event| event["topic"].as_str().unwrap())
        .collect();
    assert_eq!(
        topics,
        [
            "tidewire.audit.topic.declared",
            "tidewire.audit.settings.changed",
            "tidewire.audit.topic.withdrawn"
        ]
    );
    assert!(
        told.iter().all(|event| event["source"] == "test"),
        "{told:?}"
    );
    assert!(
        beta.get("/v1/events?topics=tidewire.audit.*").await["events"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_setting_is_refused() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    for bad in [
        json!({"topic_mode": "shut"}),
        json!({"consent": "no"}),
        json!({"consent_topics": []}),
        json!({"consent_topics": ["A B"]}),
        json!({"tenant": "beta"}),
        json!([]),
    ] {
        assert_eq!(
            ask(&acme, Method::PATCH, "/v1/settings", &bad).await.0,
            400,
            "{bad}"
        );
    }
    for (pattern, bad, status) in [
        ("A", json!({}), 400),
        ("tidewire.x", json!({}), 400),
        ("a", json!({"in_sql": "maybe"}), 400),
        ("a", json!({"description": "x".repeat(5_000)}), 400),
        ("a", json!({"schema": {"type": "nothing"}}), 422),
        ("a", json!({"schema": {"$ref": "#"}}), 422),
        ("a", json!({"schema": {"const": "x".repeat(70_000)}}), 422),
        ("a", json!({"schema": {"const": "\u{0}"}}), 422),
    ] {
        let path = format!("/v1/topics/{pattern}");
        let (got, answer) = ask(&acme, Method::PUT, &path, &bad).await;
        assert_eq!(got, status, "{pattern} {bad:.100}: {answer}");
    }
    server.stop().await;
}

/// What nobody can read lets nothing pass that it may have forbidden; other tenants go on.
#[tokio::test]
async fn settings_that_cannot_be_read_stop_their_own_tenants_writes() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    db.connect()
        .await
        .batch_execute("INSERT INTO tidewire.declared_topics (tenant, pattern, schema) VALUES ('acme', 'a', '{\"$ref\": \"#\"}')")
        .await
        .unwrap();
    eventually(PROMISED, || async {
        let (status, answer) = acme.try_append(&json!({"topic": "b"})).await;
        (status == 500).then_some(()).ok_or(answer)
    })
    .await;
    beta.append(&json!({"topic": "b"})).await;
    declare(&acme, "a", &json!({})).await;
    acme.append(&json!({"topic": "b"})).await;
    server.stop().await;
}
