//! Settings of one tenant cost no other tenant anything, and no change of them is lost.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::json_of;
use crate::support::credentials::{admin, create_key};
use crate::support::token::WITH_TOKENS;
use crate::support::{Api, Server, TestDb, eventually};
use crate::tenants::rewriting::Rewriting;

/// What is decided anywhere is in force everywhere within this time.
const PROMISED: Duration = Duration::from_secs(1);

async fn declare(api: &Api, pattern: &str, declaration: &Value) -> u16 {
    let request = api.request(Method::PUT, &format!("/v1/topics/{pattern}"));
    json_of(request.json(declaration).send().await.unwrap())
        .await
        .0
        .as_u16()
}

/// The answer to an event on a topic that nobody declares.
async fn undeclared(api: &Api) -> u16 {
    let (status, _) = api.try_append(&json!({"topic": "agent.x"})).await;
    status.as_u16()
}

async fn obeys(api: &Api, wanted: u16) {
    eventually(PROMISED, || async {
        let status = undeclared(api).await;
        (status == wanted).then_some(()).ok_or(status)
    })
    .await;
}

fn mode(tenant: &str, mode: &str) -> String {
    format!(
        "INSERT INTO tidewire.tenant_settings (tenant, topic_mode) VALUES ('{tenant}', '{mode}')
             ON CONFLICT (tenant) DO UPDATE SET topic_mode = excluded.topic_mode"
    )
}

#[tokio::test]
async fn a_change_of_one_tenant_leaves_anothers_settings_unread() {
    let db = TestDb::new().await;
    // Counted: the statement that begins a read of a tenant's settings.
    let (statement, same) = (
        "SELECT s.topic_mode, s.consent",
        "SELECT s.TOPIC_MODE, s.consent",
    );
    let (reads, url) = Rewriting::before_database(&db.url, statement, same).await;
    let server = Server::start_with(&url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let event = json!({"topic": "deal.won"});
    acme.append(&event).await;
    beta.append(&event).await;
    assert_eq!(reads.count(), 2);
    for round in 0..10 {
        let declaration = json!({"schema": {"maxLength": round}});
        assert_eq!(declare(&acme, "deal.*", &declaration).await, 204);
        let before = reads.count();
        beta.append(&event).await;
        assert_eq!(reads.count(), before, "beta has changed nothing");
    }
    assert!(reads.count() <= 12, "acme's own, once for each change");
    assert_eq!(undeclared(&acme).await, 201);
    server.stop().await;
}

/// Changes of one topic of many: the others are not read again, nor made ready.
#[tokio::test]
async fn of_a_tenants_topics_the_one_that_changed_is_read() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let size = |size: u32| json!({"schema": {"maximum": size}});
    for topic in ["deal.a", "deal.b", "deal.c"] {
        assert_eq!(declare(&acme, topic, &size(5)).await, 204);
    }
    let stored = |topic: &'static str, data: u32| {
        let acme = acme.clone();
        async move {
            let (status, _) = acme
                .try_append(&json!({"topic": topic, "data": data}))
                .await;
            status == 201
        }
    };
    assert!(stored("deal.a", 5).await && !stored("deal.a", 6).await);
    assert_eq!(declare(&acme, "deal.b", &size(7)).await, 204);
    assert!(!stored("deal.a", 6).await && stored("deal.b", 7).await && !stored("deal.c", 6).await);
    // Removed and made again: another row, though the same topic.
    let withdraw = acme.request(Method::DELETE, "/v1/topics/deal.a");
    assert_eq!(withdraw.send().await.unwrap().status(), 204);
    assert!(stored("deal.a", 9).await);
    assert_eq!(declare(&acme, "deal.a", &size(8)).await, 204);
    assert!(stored("deal.a", 8).await && !stored("deal.a", 9).await && !stored("deal.b", 8).await);
    server.stop().await;
}

/// A server looks between two changes of which the earlier commits last.
#[tokio::test]
async fn changes_that_commit_in_another_order_are_all_seen() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    assert_eq!(
        (undeclared(&acme).await, undeclared(&beta).await),
        (201, 201)
    );
    let (early, late) = (db.connect().await, db.connect().await);
    early.batch_execute("BEGIN").await.unwrap();
    early
        .batch_execute(&mode("acme", "declared"))
        .await
        .unwrap();
    let other = tokio::time::timeout(Duration::from_secs(10), async {
        late.batch_execute(&mode("beta", "declared")).await.unwrap();
    });
    other
        .await
        .expect("one tenant's change waits for another's");
    obeys(&beta, 422).await;
    assert_eq!(undeclared(&acme).await, 201, "not committed");
    early.batch_execute("COMMIT").await.unwrap();
    obeys(&acme, 422).await;
    // Of the same tenant: the later transaction first.
    early
        .batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    late.batch_execute(&mode("acme", "open")).await.unwrap();
    obeys(&acme, 201).await;
    early
        .batch_execute(&mode("acme", "declared"))
        .await
        .unwrap();
    early.batch_execute("COMMIT").await.unwrap();
    obeys(&acme, 422).await;
    // What is rolled back changes nothing.
    early.batch_execute("BEGIN").await.unwrap();
    early.batch_execute(&mode("acme", "open")).await.unwrap();
    early.batch_execute("ROLLBACK").await.unwrap();
    late.batch_execute("DELETE FROM tidewire.tenant_settings WHERE tenant = 'beta'")
        .await
        .unwrap();
    obeys(&beta, 201).await;
    assert_eq!(undeclared(&acme).await, 422);
    server.stop().await;
}

/// What a tenant does while its own rows are locked is refused after a moment, and holds up nobody else.
#[tokio::test]
async fn a_change_that_is_held_up_holds_up_nobody_else() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let open = db.connect().await;
    open.batch_execute("BEGIN").await.unwrap();
    open.batch_execute(&mode("acme", "declared")).await.unwrap();
    let nothing = json!({});
    let held_up = declare(&acme, "deal.*", &nothing);
    let others = async {
        for round in 0..20 {
            let (_, key) = create_key(&beta).await;
            let holder = server.api.with_token(&key);
            assert_eq!(holder.try_get("/v1/events").await.0, 200, "{round}");
        }
        // These wait behind it.
        assert_eq!(declare(&beta, "deal.*", &json!({})).await, 204);
    };
    let (held_up, ()) = tokio::join!(held_up, others);
    assert_eq!(held_up, 503);
    open.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(declare(&acme, "deal.*", &json!({})).await, 204);
    server.stop().await;
}

/// An array whose every item is compared with a thousand values.
fn costly(events: usize) -> (Value, Value) {
    let values: Vec<Value> = (0..1_000).map(|n| json!({ "const": n })).collect();
    let event = json!({"topic": "deal.won", "data": vec![999; 900]});
    (
        json!({"schema": {"items": {"anyOf": values}}}),
        Value::from(vec![event; events]),
    )
}

/// The answer to an NDJSON upload.
async fn upload(api: &Api, events: &Value) -> String {
    let events = events.as_array().unwrap();
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    let request = api.request(Method::POST, "/v1/events");
    let request = request.header("content-type", "application/x-ndjson");
    let answer = request.body(lines.join("\n")).send().await.unwrap();
    answer.text().await.unwrap()
}

/// On one thread: if the checks were made on it, nobody would be answered before all of them are.
#[tokio::test]
async fn what_one_tenant_has_checked_keeps_nobody_else() {
    const EVENTS: usize = 80;
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let (schema, events) = costly(EVENTS);
    assert_eq!(declare(&acme, "deal.*", &schema).await, 204);
    assert_eq!(
        declare(&beta, "deal.*", &json!({"schema": {"type": "array"}})).await,
        204
    );
    let quiet = json!({"topic": "deal.won", "data": [1]});
    beta.append(&quiet).await;
    for way in ["array", "lines", "socket"] {
        let (acme, events) = (acme.clone(), events.clone());
        let mut loud = Box::pin(async move {
            match way {
                "array" => assert_eq!(acme.append(&events).await.len(), EVENTS),
                "lines" => {
                    let answer = upload(&acme, &events).await;
                    assert_eq!(answer.matches("cursor").count(), EVENTS, "{answer}");
                }
                _ => {
                    let mut ws = acme.ws().await;
                    ws.send(json!({"type": "append", "ref": "r", "events": events}))
                        .await;
                    ws.until("appended").await;
                }
            }
        });
        let mut answered = 0;
        loop {
            tokio::select! {
                biased;
                () = &mut loud => break,
                _ = beta.append(&quiet) => answered += 1,
            }
        }
        assert!(answered >= 20, "{way}: {answered} answers meanwhile");
    }
    server.stop().await;
}

/// Each of a batch is checked, wherever: what breaks the schema is found behind much that does not.
#[tokio::test]
async fn what_is_checked_elsewhere_is_refused_as_well() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let (schema, mut events) = costly(4);
    assert_eq!(declare(&acme, "deal.*", &schema).await, 204);
    events[2]["data"] = json!([1_000]);
    let (status, problem) = acme.try_append(&events).await;
    assert_eq!(status, 422, "{problem}");
    assert_eq!(problem["errors"][0]["index"], 2, "{problem}");
    let answer = upload(&acme, &events).await;
    let refused: Vec<bool> = answer
        .lines()
        .map(|line| line.contains("schema-violation"))
        .collect();
    assert_eq!(refused, [false, false, true, false], "{answer}");
    // Several schemas count together.
    for pattern in ["*.won", "*", "deal.won"] {
        assert_eq!(declare(&acme, pattern, &schema).await, 204);
    }
    let (status, problem) = acme.try_append(&events[0]).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("too many values"), "{problem}");
    server.stop().await;
}

#[tokio::test]
async fn all_schemas_of_a_tenant_together_have_a_bound() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let ten: Vec<Value> = (0..10)
        .map(|n| json!({"pattern": format!("^a{n}")}))
        .collect();
    let ten = json!({"schema": {"allOf": ten}});
    for number in 0..10 {
        assert_eq!(declare(&acme, &format!("deal.p{number}"), &ten).await, 204);
    }
    assert_eq!(
        declare(&acme, "deal.one", &json!({"schema": {"pattern": "a"}})).await,
        422
    );
    assert_eq!(
        declare(&acme, "deal.p3", &ten).await,
        204,
        "instead of itself"
    );
    assert_eq!(
        declare(&acme, "deal.none", &json!({"schema": {"type": "null"}})).await,
        204
    );
    assert_eq!(declare(&beta, "deal.one", &ten).await, 204);
    let large: Vec<u32> = (0..9_900).collect();
    let large = json!({"schema": {"enum": large}});
    let mut last = 204;
    for number in 0..11 {
        assert_eq!(last, 204, "{number}");
        last = declare(&beta, &format!("deal.v{number}"), &large).await;
    }
    assert_eq!(last, 422);
    server.stop().await;
}
