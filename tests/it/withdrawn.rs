//! Revocations that are listed in pages, renewed, and taken back.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::json_of;
use crate::support::credentials::try_revoke;
use crate::support::token::{self, WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb, eventually};

/// What a list goes on after.
type Key<'a> = &'a dyn Fn(&Value) -> String;

/// As many as a tenant may have.
const MOST: i64 = 10_000;

async fn withdraw(admin: &Api, path: &str) -> StatusCode {
    let request = admin.request(Method::DELETE, &format!("/v1/revocations/{path}"));
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_tenant_with_as_many_as_it_may_have_renews_takes_back_and_goes_on() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let fill = format!(
        "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_at)
         SELECT 'acme', 'sub', 'person/' || n, now() + interval '1 minute' FROM generate_series(1, {MOST}) AS n"
    );
    client.batch_execute(&fill).await.unwrap();
    let a = Server::start_with(&db.url, WITH_TOKENS).await;
    let quiet = [WITH_TOKENS, &["--notify", "never"]].concat();
    let b = Server::start_with(&db.url, &quiet).await;
    let admin = a.api.with_token(&token::token("acme"));
    let (status, problem) = try_revoke(&admin, &json!({"sub": "another"})).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (409, &json!("/problems/too-many"))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("DELETE /v1/revocations"), "{detail}");
    assert_eq!(
        try_revoke(&admin, &json!({"sub": "person/7"})).await.0,
        201,
        "it is there already"
    );
    let person = issue(&tidewire::access::Claims {
        sub: "person/8".into(),
        ..claims("acme")
    });
    let reads = async |server: &Server| {
        let api = server.api.with_token(&person);
        api.try_get("/v1/events").await.0.as_u16()
    };
    assert_eq!((reads(&a).await, reads(&b).await), (401, 401));
    assert_eq!(withdraw(&admin, "sub/person%2F8").await, 204);
    assert_eq!(reads(&a).await, 200, "at once where it was asked for");
    eventually(Duration::from_secs(1), || async {
        let status = reads(&b).await;
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
    for missing in ["sub/person%2F8", "jti/person%2F7", "exp/person%2F7"] {
        assert_eq!(withdraw(&admin, missing).await, 404, "{missing}");
    }
    let beta = a.api.with_token(&token::token("beta"));
    assert_eq!(withdraw(&beta, "sub/person%2F7").await, 404);
    assert_eq!(
        try_revoke(&admin, &json!({"sub": "another"})).await.0,
        201,
        "there is room"
    );
    // Who did it, and of what, but for the name.
    let told = admin
        .page("earliest", "&topics=tidewire.audit.token.forgotten")
        .await;
    let [told] = told["events"].as_array().unwrap().as_slice() else {
        panic!("{told}")
    };
    assert_eq!(told["source"], claims("acme").sub.as_str());
    assert_eq!(told["data"]["claim"], "sub");
    assert!(!told.to_string().contains("person/8"), "{told}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn lists_go_on_and_say_whether_there_is_more() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let fill = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value)
         SELECT 'acme', CASE n % 2 WHEN 0 THEN 'sub' ELSE 'jti' END, 'a/b&c ' || n FROM generate_series(1, 2500) AS n;
         INSERT INTO tidewire.api_keys (key_id, tenant, name, role, read_topics, write_topics, secret_sha256)
         SELECT lpad(n::text, 16, '0'), 'acme', 'n', 'agent', '{}', '{}', sha256('x') FROM generate_series(1, 2000) AS n";
    client.batch_execute(fill).await.unwrap();
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
    let place = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        format!("{}/{}", text("claim"), text("value"))
    };
    let lists: [(_, _, Key<'_>, &[usize]); 2] = [
        (
            "/v1/revocations",
            "revocations",
            &place,
            &[1_000, 1_000, 500],
        ),
        ("/v1/api-keys", "api_keys", &id, &[1_000, 1_000]),
    ];
    for (path, name, key, sizes) in lists {
        let (mut after, mut all) = (String::new(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("after", &after)
                .finish();
            let page = admin.get(&format!("{path}?{query}")).await;
            let listed = page[name].as_array().unwrap();
            assert_eq!(listed.len(), *size);
            assert_eq!(page["has_more"], json!(number + 1 < sizes.len()), "{path}");
            after = key(listed.last().unwrap());
            all.extend(listed.iter().map(key));
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(
            (all.len(), count),
            (count, sizes.iter().sum()),
            "{path}: each once"
        );
    }
    for after in ["x", "exp/x", "0000"] {
        let path = format!("/v1/revocations?after={after}");
        assert_eq!(admin.try_get(&path).await.0, 400, "{after}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused_to_administrators_as_to_all() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    for (method, path) in [
        ("GET", "/v1/api-keys?afer=x"),
        ("GET", "/v1/api-keys?after=&after="),
        ("GET", "/v1/api-keys?after=%00"),
        ("GET", "/v1/api-keys?after=no-id"),
        ("POST", "/v1/api-keys?name=x"),
        ("DELETE", "/v1/api-keys/0000000000000000?force=1"),
        ("GET", "/v1/revocations?sub=x"),
        ("POST", "/v1/revocations?after="),
        ("DELETE", "/v1/revocations/sub/x?x"),
        ("GET", "/v1/settings?tenant=beta"),
        ("PATCH", "/v1/settings?dry_run"),
        ("GET", "/v1/topics?after=x"),
        ("PUT", "/v1/topics/a.b?x=1"),
        ("DELETE", "/v1/topics/a.b?x=1"),
        ("GET", "/v1/subjects/x?parts=source"),
        ("DELETE", "/v1/subjects/x?part=source"),
        ("GET", "/v1/retention?x=1"),
        ("PUT", "/v1/retention/a.b?days=1"),
        ("DELETE", "/v1/retention/a.b?x=1"),
        ("GET", "/v1/status?verbose"),
    ] {
        let request = admin.request(method.parse().unwrap(), path);
        let (status, problem) = json_of(request.json(&json!({})).send().await.unwrap()).await;
        assert_eq!(
            (status.as_u16(), &problem["type"]),
            (400, &json!("/problems/invalid-parameter")),
            "{method} {path}: {problem}"
        );
    }
    server.stop().await;
}

/// A transaction that keeps every look from this table.
async fn without_looks(db: &TestDb, table: &str) -> tokio_postgres::Client {
    let operator = db.connect().await;
    let lock = format!("BEGIN; LOCK TABLE tidewire.{table} IN ACCESS EXCLUSIVE MODE");
    operator.batch_execute(&lock).await.unwrap();
    operator
}

#[tokio::test]
async fn what_is_done_is_answered_as_done_where_no_look_follows() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let ask = async |method, path: &str, body: &Value| {
        let request = admin.request(method, path).json(body);
        request.send().await.unwrap().status().as_u16()
    };
    let declared = json!({"topic_mode": "declared"});
    assert_eq!(ask(Method::PATCH, "/v1/settings", &declared).await, 200);
    for topic in ["a.b", "c.d"] {
        let path = format!("/v1/topics/{topic}");
        assert_eq!(ask(Method::PUT, &path, &json!({})).await, 204);
        let (status, answer) = admin.try_append(&json!({ "topic": topic })).await;
        assert_eq!(status, 201, "{answer}");
    }
    let operator = without_looks(&db, "credential_changes").await;
    let withdrawn = ask(Method::DELETE, "/v1/topics/a.b", &Value::Null).await;
    assert_eq!(withdrawn, 204);
    // At once, as promised: it is read again by who asks for it.
    let (status, answer) = admin.try_append(&json!({"topic": "a.b"})).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(ask(Method::PUT, "/v1/topics/e.f", &json!({})).await, 204);
    let (status, answer) = admin.try_append(&json!({"topic": "e.f"})).await;
    assert_eq!(status, 201, "{answer}");
    operator.batch_execute("ROLLBACK").await.unwrap();

    assert_eq!(try_revoke(&admin, &json!({"sub": "mallory"})).await.0, 201);
    let mallory = issue(&tidewire::access::Claims {
        sub: "mallory".into(),
        ..claims("acme")
    });
    let mallory = server.api.with_token(&mallory);
    assert_eq!(mallory.try_get("/v1/events").await.0, 401);
    let operator = without_looks(&db, "setting_changes").await;
    assert_eq!(withdraw(&admin, "sub/mallory").await, 204);
    // Not so what takes rights away: whoever is told that it is done relies on it, and asks again otherwise.
    assert_eq!(try_revoke(&admin, &json!({"sub": "eve"})).await.0, 503);
    operator.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(try_revoke(&admin, &json!({"sub": "eve"})).await.0, 201);
    eventually(Duration::from_secs(1), || async {
        let status = mallory.try_get("/v1/events").await.0;
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
    server.stop().await;
}
