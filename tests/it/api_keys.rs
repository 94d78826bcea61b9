//! API keys: created, shown once, listed, used, revoked; whose they are and what they are good for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::credentials::{admin, create_key, try_create_key, try_revoke_key};
use crate::support::proxy::Proxy;
use crate::support::token::{self, WITH_TOKENS, claims, in_seconds, issue};
use crate::support::{Api, Process, Server, TestDb, eventually};

/// What is done in SQL, a server knows within this time.
const PROMISED: Duration = Duration::from_secs(1);

async fn listed(admin: &Api) -> Vec<Value> {
    admin.get("/v1/api-keys").await["api_keys"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_key_is_shown_once_kept_hashed_used_and_revoked() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = admin(&server, "acme");
    let (id, key) = create_key(&admin).await;
    let agent = server.api.with_token(&key);
    let stored = agent.append(&json!({"topic": "deal.won"})).await;
    let page = agent.page("earliest", "").await;
    assert_eq!(page["events"][0]["id"], stored[0]["id"]);
    assert_eq!(page["events"][0]["source"], "agent-7");
    for (topic, why) in [
        ("agent.x", "not granted"),
        ("tidewire.audit.x", "the log's own"),
    ] {
        let (status, _) = agent.try_append(&json!({ "topic": topic })).await;
        assert_eq!(status, 403, "{why}");
    }
    let (status, _) = agent.try_get("/v1/events?topics=agent.*").await;
    assert_eq!(status, 403);
    let list = listed(&admin).await;
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["id"], &list[0]["name"]),
        (&json!(id), &json!("agent-7"))
    );
    let secret = key.rsplit_once(&format!("{id}_")).unwrap().1;
    let kept = db
        .connect()
        .await
        .query_one("SELECT k::text FROM tidewire.api_keys AS k", &[])
        .await
        .unwrap();
    for text in [kept.get::<_, String>(0), json!(list).to_string()] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(try_revoke_key(&admin, &id).await, 204);
    let (status, problem) = agent.try_get("/v1/events").await;
    assert_eq!(
        (status.as_u16(), &problem["detail"]),
        (401, &json!("the credential has been revoked"))
    );
    let list = listed(&admin).await;
    assert_eq!(list[0]["revoked_by"], "test");
    assert_eq!(
        try_revoke_key(&admin, &id).await,
        204,
        "again: it is revoked"
    );
    assert_eq!(listed(&admin).await[0]["revoked_at"], list[0]["revoked_at"]);
    assert!(
        list[0].get("last_used_at").is_none(),
        "written now and then"
    );
    server.stop().await;
    let used = "SELECT last_used_at > created_at FROM tidewire.api_keys";
    let row = db.connect().await.query_one(used, &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<bool>>(0), Some(true), "and at the end");
}

#[tokio::test]
async fn what_is_no_key_of_this_log_lets_nobody_in() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (_, key) = create_key(&admin(&server, "acme")).await;
    let (_, other) = create_key(&admin(&server, "acme")).await;
    let mixed = format!("{}{}", &key[..20], &other[20..]);
    let (other_id, last) = (tidewire::access::ApiKey::generate(), &key[key.len() - 1..]);
    let turned = if last == "A" { "B" } else { "A" };
    for (bad, why) in [
        (mixed, "another's secret"),
        (
            format!("{}{turned}", &key[..key.len() - 1]),
            "a character is another",
        ),
        (other_id.reveal().reveal().to_owned(), "nobody's"),
        (key[..20].to_owned(), "the id alone"),
        (key.replace("tw_", "TW_"), "another prefix"),
        (format!("{key}="), "longer"),
    ] {
        let (status, problem) = server.api.with_token(&bad).try_get("/v1/events").await;
        assert_eq!(status, 401, "{why}");
        assert!(!problem.to_string().contains(&bad), "{why}: {problem}");
    }
    // One whose row was made unreadable in SQL lets nobody in either.
    db.connect()
        .await
        .batch_execute("UPDATE tidewire.api_keys SET read_topics = '{NO TOPIC}'")
        .await
        .unwrap();
    let holder = server.api.with_token(&key);
    eventually(PROMISED, || async {
        let (status, _) = holder.try_get("/v1/events").await;
        (status == 401).then_some(()).ok_or(status)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn keys_are_the_tenants_own_and_for_its_administrators() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let (id, key) = create_key(&acme).await;
    assert!(listed(&beta).await.is_empty());
    assert_eq!(try_revoke_key(&beta, &id).await, 404);
    assert_eq!(try_revoke_key(&acme, "nonsense").await, 404);
    let agent = server.api.with_token(&key);
    assert_eq!(agent.try_get("/v1/api-keys").await.0, 403);
    assert_eq!(
        try_create_key(&agent, &json!({"name": "x", "role": "agent"}))
            .await
            .0,
        403
    );
    assert_eq!(try_revoke_key(&agent, &id).await, 403);
    // Nobody grants more than they hold.
    let narrow = tidewire::access::Claims {
        read: vec!["deal.*".into()],
        write: vec!["deal.stage.*".into()],
        ..claims("acme")
    };
    let narrow = server.api.with_token(&issue(&narrow));
    for (read, write, status) in [
        (json!(["deal.*"]), json!(["deal.stage.won"]), 201),
        (json!(["*"]), json!([]), 403),
        (json!([]), json!(["deal.*"]), 403),
        (json!(["*.deal"]), json!([]), 403),
        (json!(["tidewire.audit.*"]), json!([]), 403),
        (json!(["Not A Topic"]), json!([]), 400),
    ] {
        let wanted = json!({"name": "n", "role": "admin", "read": read, "write": write});
        let (got, answer) = try_create_key(&narrow, &wanted).await;
        assert_eq!(got, status, "{wanted}: {answer}");
    }
    for bad in [
        json!({}),
        json!({"name": "n"}),
        json!({"name": "", "role": "agent"}),
        json!({"name": "n", "role": "root"}),
        json!({"name": "n", "role": "agent", "tenant": "beta"}),
        json!({"name": "n", "role": "agent", "expires_at": "2001-01-01T00:00:00Z"}),
    ] {
        assert_eq!(try_create_key(&acme, &bad).await.0, 400, "{bad}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_key_expires_and_says_so() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let ends = in_seconds(2);
    let expires_at = chrono::DateTime::from_timestamp(ends.cast_signed(), 0);
    let wanted = json!({"name": "n", "role": "agent", "read": ["*"], "expires_at": expires_at});
    let (status, answer) = try_create_key(&admin(&server, "acme"), &wanted).await;
    assert_eq!(status, 201, "{answer}");
    let agent = server.api.with_token(answer["key"].as_str().unwrap());
    let mut ws = agent.ws().await;
    assert_eq!(ws.close_code().await, 4401);
    assert!(in_seconds(0) >= ends, "not before its time");
    let (status, problem) = agent.try_get("/v1/events").await;
    assert_eq!(
        (status.as_u16(), &problem["detail"]),
        (401, &json!("the credential has expired"))
    );
    server.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_database_locks_out_nobody_who_is_known() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, WITH_TOKENS).await;
    let admin = admin(&server, "acme");
    let (id, key) = create_key(&admin).await;
    let (_, unknown) = create_key(&admin).await;
    let agent = server.api.with_token(&key);
    let cursor = agent.page("latest", "").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    proxy.cut();
    let path = format!("/v1/events?after={cursor}");
    assert_eq!(agent.try_get(&path).await.0, 200, "the window answers");
    let (status, problem) = server.api.with_token(&unknown).try_get(&path).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (503, &json!("/problems/unavailable"))
    );
    assert_eq!(
        try_revoke_key(&admin, &id).await,
        503,
        "what is not stored is not promised"
    );
    // Revoked by somebody else meanwhile: closed as soon as this server hears of it.
    let mut ws = agent.ws().await;
    let revoked = "UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'operator' WHERE key_id = $1";
    db.connect().await.execute(revoked, &[&id]).await.unwrap();
    proxy.restore();
    assert_eq!(ws.close_code().await, 4401);
    assert_eq!(
        server
            .api
            .with_token(&unknown)
            .try_get("/v1/events")
            .await
            .0,
        200
    );
    server.stop().await;
}

#[tokio::test]
async fn the_log_says_who_created_and_revoked_and_only_administrators_read_it() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let (id, key) = create_key(&acme).await;
    assert_eq!(try_revoke_key(&acme, &id).await, 204);
    let read = "/v1/events?topics=tidewire.audit.*";
    let page = eventually(PROMISED, || async {
        let page = acme.get(read).await;
        let count = page["events"].as_array().unwrap().len();
        (count == 2).then_some(page.clone()).ok_or(page)
    })
    .await;
    let events = page["events"].as_array().unwrap();
    let topics: Vec<_> = events
        .iter()
        .map(|event| event["topic"].as_str().unwrap())
        .collect();
    assert_eq!(
        topics,
        [
            "tidewire.audit.api_key.created",
            "tidewire.audit.api_key.revoked"
        ]
    );
    for event in events {
        assert_eq!(
            (&event["source"], &event["subject"]),
            (&json!("test"), &json!(id))
        );
    }
    let secret = key.rsplit_once('_').unwrap().1;
    assert!(!page.to_string().contains(secret));
    // Others do not see it, whatever they ask for.
    assert!(
        beta.get(read).await["events"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(
        acme.page("earliest", "").await["events"]
            .as_array()
            .unwrap()
            .is_empty(),
        "unless it is named"
    );
    let mut claims = claims("acme");
    claims.role = tidewire::access::Role::Dashboard;
    claims.read = vec!["*".into(), "tidewire.*".into()];
    let dashboard = server.api.with_token(&issue(&claims));
    assert_eq!(dashboard.try_get(read).await.0, 403);
    assert!(
        dashboard.page("earliest", "").await["events"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.stop().await;
}

#[tokio::test]
async fn neither_a_key_nor_data_is_ever_logged() {
    let db = TestDb::new().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = [WITH_TOKENS, &["--log", "trace"]].concat();
    let server = Process::start_logging(&db.url, &arguments, log.reopen().unwrap()).await;
    let admin = server.api.with_token(&token::token("acme"));
    let (id, key) = create_key(&admin).await;
    let wrong = format!("{}{}", &key[..20], "B".repeat(43));
    for credential in [&key, &wrong] {
        let holder = server.api.with_token(credential);
        let _ = holder.try_get("/v1/events").await;
        let _ = holder.try_ws().await;
        let query = format!("after=latest&token={credential}");
        let _ = server.api.sse(&query, None).await.unwrap();
        let mut ws = admin.ws().await;
        ws.send(json!({"type": "auth", "token": credential})).await;
        ws.next().await.ok();
    }
    // Nor what events say, by whichever way they come and go.
    admin
        .append(&json!({"topic": "deal.won", "data": "UNLOGGED-1"}))
        .await;
    let mut ws = admin.ws().await;
    ws.subscribe("s", &["deal.*"], "earliest").await;
    ws.until("events").await;
    let append = json!({"type": "append", "ref": "r", "events": {"topic": "deal.won", "data": "UNLOGGED-2"}});
    ws.send(append).await;
    ws.until("appended").await;
    assert_eq!(try_revoke_key(&admin, &id).await, 204);
    let _ = server.api.with_token(&key).try_get("/v1/events").await;
    server.kill().await;
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("the log is ready"), "{text:.500}");
    for secret in [&key[20..], &wrong[20..], "UNLOGGED"] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
