//! Credentials that end while they are in use: on this server and on others, on every kind of connection.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::credentials::{create_key, revoke, try_revoke};
use crate::support::held::Held;
use crate::support::token::{self, WITH_TOKENS, in_seconds};
use crate::support::{Api, Server, TestDb, eventually};

/// What PROTOCOL promises.
const PROMISED: Duration = Duration::from_secs(1);

/// A token with more claims than those of this program's own.
fn token_with(more: &Value) -> String {
    let mut claims = json!({
        "sub": "agent-1", "exp": in_seconds(600), "iat": in_seconds(-5), "tenant": "acme", "role": "agent",
        "read": ["deal.*"], "write": ["deal.*"],
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    token::sign(&claims)
}

/// All connections of `credential` at `b` end in time when `revoke` ends it, and it opens none any more.
pub async fn ends(b: &Server, credential: &str, revoke: impl Future<Output = ()>) {
    let holder = b.api.with_token(credential);
    closes(&holder, revoke).await;
    let (status, problem) = holder.try_append(&json!({"topic": "deal.won"})).await;
    assert_eq!(status, 401, "{problem}");
    assert!(holder.try_ws().await.is_err());
}

/// All connections of `holder` end in time when `change` changes what it may.
async fn closes(holder: &Api, change: impl Future<Output = ()>) {
    let mut held = Held::open(holder).await;
    assert!(held.are_open());
    let began = Instant::now();
    change.await;
    for one in held.ended(began, PROMISED).await {
        let told = match one.kind {
            "socket" | "idle socket" => one.said == "4401",
            _ => one.said.contains("the credential has been revoked"),
        };
        assert!(told, "{}: {}", one.kind, one.said);
    }
}

/// Two servers, the second of which may hear no NOTIFY.
async fn two_servers(db: &TestDb, notify: &str) -> (Server, Server) {
    let arguments = [WITH_TOKENS, &["--notify", notify]].concat();
    let a = Server::start_with(&db.url, WITH_TOKENS).await;
    (a, Server::start_with(&db.url, &arguments).await)
}

#[tokio::test]
async fn a_revocation_at_one_server_closes_what_is_open_at_another_within_a_second() {
    for notify in ["auto", "never"] {
        let db = TestDb::new().await;
        let (a, b) = two_servers(&db, notify).await;
        let admin = a.api.with_token(&token::token("acme"));
        // Some issuers count their tokens.
        ends(
            &b,
            &token_with(&json!({"jti": 7})),
            revoke(&admin, &json!({"jti": "7"})),
        )
        .await;
        let (id, key) = create_key(&admin).await;
        ends(&b, &key, async {
            let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
            assert_eq!(request.send().await.unwrap().status(), 204);
        })
        .await;
        ends(
            &b,
            &token_with(&json!({"jti": "t-1"})),
            revoke(&admin, &json!({"jti": "t-1"})),
        )
        .await;
        ends(
            &b,
            &token_with(&json!({})),
            revoke(&admin, &json!({"sub": "agent-1"})),
        )
        .await;
        // In SQL, by an operator; the row removed as well as marked.
        for change in [
            "UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'operator' WHERE key_id = $1",
            "DELETE FROM tidewire.api_keys WHERE key_id = $1",
        ] {
            let (id, key) = create_key(&admin).await;
            let client = db.connect().await;
            ends(&b, &key, async {
                client.execute(change, &[&id]).await.unwrap();
            })
            .await;
        }
        // What its key grants is another thing than when it began.
        let client = db.connect().await;
        for change in [
            "expires_at = now() - interval '1 minute', read_topics = '{}', write_topics = '{}'",
            "expires_at = now() + interval '1 hour'",
            "role = 'dashboard'",
            "read_topics = '{deal.lost}'",
            "write_topics = '{}'",
            "read_topics = '{NULL}'",
            "tenant = 'beta'",
            "name = 'agent-8'",
            "secret_sha256 = sha256('another')",
            "key_id = reverse(key_id)",
        ] {
            let (id, key) = create_key(&admin).await;
            let holder = b.api.with_token(&key);
            // What changes nothing ends nothing.
            let touch =
                "UPDATE tidewire.api_keys SET name = name, created_by = 'x' WHERE key_id = $1";
            let mut other = holder.ws().await;
            client.execute(touch, &[&id]).await.unwrap();
            let statement = format!("UPDATE tidewire.api_keys SET {change} WHERE key_id = $1");
            closes(&holder, async {
                other.subscribe("s", &["deal.*"], "latest").await;
                client.execute(&statement, &[&id]).await.unwrap();
            })
            .await;
            assert_eq!(other.close_code().await, 4401, "{change}");
        }
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn a_revocation_ends_its_own_and_nothing_else() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (token::token("acme"), token::token("beta"));
    let (acme, beta) = (server.api.with_token(&acme), server.api.with_token(&beta));
    let (_, key) = create_key(&acme).await;
    let others = [
        token_with(&json!({"jti": "t-2"})),
        token_with(&json!({"jti": "t-1", "tenant": "beta"})),
        token_with(&json!({"sub": "t-1"})),
        key,
    ];
    let mut held = Vec::new();
    for other in &others {
        held.push(Held::open(&server.api.with_token(other)).await);
    }
    let first = token_with(&json!({"jti": "t-1"}));
    ends(&server, &first, revoke(&acme, &json!({"jti": "t-1"}))).await;
    revoke(&beta, &json!({"sub": "agent-1"})).await;
    revoke(&beta, &json!({"jti": "t-2"})).await;
    // The same subject at another tenant was revoked there alone; a new token of it counts there too.
    // By a clock that may differ by half a minute.
    let soon = token_with(&json!({"tenant": "beta", "iat": in_seconds(25)}));
    let soon = server.api.with_token(&soon);
    assert_eq!(soon.try_get("/v1/events").await.0, 401);
    let later = token_with(&json!({"tenant": "beta", "iat": in_seconds(40)}));
    assert_eq!(
        server.api.with_token(&later).try_get("/v1/events").await.0,
        200
    );
    let beta_held = &mut held.remove(1);
    assert!(!beta_held.ended(Instant::now(), PROMISED).await.is_empty());
    for (one, token) in held.iter_mut().zip([&others[0], &others[2], &others[3]]) {
        assert!(one.are_open());
        assert_eq!(
            server.api.with_token(token).try_get("/v1/events").await.0,
            200
        );
    }
    let listed = acme.get("/v1/revocations").await;
    let listed = listed["revocations"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "each tenant sees its own: {listed:?}");
    assert_eq!(
        (&listed[0]["claim"], &listed[0]["value"]),
        (&json!("jti"), &json!("t-1"))
    );
    server.stop().await;
}

#[tokio::test]
async fn only_administrators_revoke_and_only_what_can_be() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let agent = server.api.with_token(&token_with(&json!({})));
    let admin = server.api.with_token(&token::token("acme"));
    for (api, body, wanted) in [
        (&agent, json!({"jti": "x"}), 403),
        (&admin, json!({}), 400),
        (&admin, json!({"jti": "x", "sub": "y"}), 400),
        (&admin, json!({"jti": ""}), 400),
        (&admin, json!({"sub": "x".repeat(256)}), 400),
        (&admin, json!({"sub": "x", "tenant": "beta"}), 400),
        (
            &admin,
            json!({"jti": "x", "until": "2001-01-01T00:00:00Z"}),
            400,
        ),
        (
            &admin,
            json!({"jti": "x", "until": "2030-01-01T00:00:00Z"}),
            201,
        ),
    ] {
        let (status, answer) = try_revoke(api, &body).await;
        assert_eq!(status, wanted, "{body}: {answer}");
    }
    assert_eq!(agent.try_get("/v1/revocations").await.0, 403);
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_expires_ends_what_it_opened() {
    let db = TestDb::new().await;
    let server =
        Server::start_with(&db.url, &[WITH_TOKENS, &["--jwt-leeway-s", "0"]].concat()).await;
    let expires = in_seconds(3);
    let token = token_with(&json!({ "exp": expires }));
    let mut held = Held::open(&server.api.with_token(&token)).await;
    let ended = held.ended(Instant::now(), Duration::from_secs(5)).await;
    assert_eq!(ended.len(), 5);
    assert!(in_seconds(0) >= expires, "not before its time");
    for one in ended {
        let told = match one.kind {
            "socket" | "idle socket" => one.said == "4401",
            _ => one.said.contains("the credential has expired"),
        };
        assert!(told, "{}: {}", one.kind, one.said);
    }
    server.stop().await;
}

/// A reader that has much to catch up with and reads slowly: what the server has not handed over when the token expires it
/// keeps.
#[tokio::test]
async fn a_token_that_expires_during_catch_up_ends_it() {
    const EVENTS: usize = 3_000;
    let db = TestDb::new().await;
    let arguments = [WITH_TOKENS, &["--jwt-leeway-s", "0"]].concat();
    let server = Server::start_with(&db.url, &arguments).await;
    let admin = server.api.with_token(&token::token("acme"));
    let event = json!({"topic": "deal.won", "data": "x".repeat(20_000)});
    for _ in 0..EVENTS / 100 {
        admin.append(&Value::from(vec![event.clone(); 100])).await;
    }
    let expires = in_seconds(3);
    let holder = server
        .api
        .with_token(&token_with(&json!({ "exp": expires })));
    let mut ws = holder.ws().await;
    ws.subscribe("s", &["deal.*"], "earliest").await;
    ws.until("events").await;
    let mut stream = holder
        .sse("after=earliest&topics=deal.*", None)
        .await
        .unwrap();
    stream.events().await.unwrap().unwrap();
    eventually(Duration::from_secs(10), || async {
        let now = in_seconds(0);
        (now >= expires).then_some(()).ok_or(now)
    })
    .await;
    let mut count = 0;
    let code = loop {
        match ws.frame_or_close().await {
            Ok(frame) => count += frame["events"].as_array().map_or(0, Vec::len),
            Err(code) => break code,
        }
    };
    assert_eq!(code, 4401);
    assert!(
        count < EVENTS / 2,
        "{count}: what was on its way, and no more"
    );
    let mut count = 0;
    let last = loop {
        let message = stream.next().await.unwrap().expect("it says why");
        if message.event == "error" {
            break message.data;
        }
        count += message.data.matches("deal.won").count();
    };
    assert!(last.contains("the credential has expired"), "{last}");
    assert!(
        count < EVENTS / 2,
        "{count}: what was on its way, and no more"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_new_credential_keeps_the_socket_when_the_old_one_ends() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let (first, second) = (
        token_with(&json!({"jti": "a"})),
        token_with(&json!({"jti": "b"})),
    );
    let mut ws = server.api.with_token(&first).ws().await;
    ws.subscribe("s", &["deal.*"], "latest").await;
    ws.send(json!({"type": "auth", "token": second})).await;
    assert_eq!(ws.until("notice").await["code"], "authenticated");
    revoke(&admin, &json!({"jti": "a"})).await;
    admin.append(&json!({"topic": "deal.won"})).await;
    assert_eq!(
        ws.until("events").await["events"][0]["topic"],
        "deal.won",
        "it lives on"
    );
    revoke(&admin, &json!({"jti": "b"})).await;
    assert_eq!(ws.close_code().await, 4401);
    server.stop().await;
}

/// Keys come into use at one server while others are revoked at another: each ends by its own revocation alone.
#[tokio::test]
async fn keys_that_come_while_others_go_stay() {
    let db = TestDb::new().await;
    let (a, b) = two_servers(&db, "auto").await;
    let admin = a.api.with_token(&token::token("acme"));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (admin, b) = (admin.clone(), b.api.clone());
        workers.spawn(async move {
            for _ in 0..12 {
                let (id, key) = create_key(&admin).await;
                let holder = b.with_token(&key);
                let mut ws = holder.ws().await;
                ws.subscribe("s", &["deal.*"], "latest").await;
                ws.send(json!({"type": "append", "ref": "r", "events": {"topic": "deal.won"}}))
                    .await;
                ws.until("appended").await;
                let request = admin.request(Method::DELETE, &format!("/v1/api-keys/{id}"));
                assert_eq!(request.send().await.unwrap().status(), 204);
                assert_eq!(ws.close_code().await, 4401);
                assert_eq!(holder.try_get("/v1/events").await.0, 401);
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    a.stop().await;
    b.stop().await;
}

/// A revocation that is repeated holds for longer, never for less.
#[tokio::test]
async fn a_revocation_is_never_shortened() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    let at = |seconds| chrono::DateTime::from_timestamp(in_seconds(seconds).cast_signed(), 0);
    for (first, second, left) in [
        (None, at(60), None),
        (at(600), at(60), at(600)),
        (at(60), at(600), at(600)),
        (at(60), None, None),
    ] {
        let jti = format!("{first:?} {second:?}");
        for until in [first, second] {
            let mut what = json!({ "jti": jti });
            if let Some(until) = until {
                what["until"] = json!(until);
            }
            revoke(&admin, &what).await;
        }
        let listed = admin.get("/v1/revocations").await;
        let mut listed = listed["revocations"].as_array().unwrap().iter();
        let one = listed.find(|one| one["value"] == json!(jti)).unwrap();
        assert_eq!(one["until"], json!(left), "{jti}");
    }
    server.stop().await;
}
