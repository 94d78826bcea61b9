//! What waits for neither a body nor a lock: settings that cannot be read, a provider of keys that does not answer, a client
//! that takes nothing. The credential ends meanwhile.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::waiting::{AGAINST_ALL, PROMISED, hold};
use crate::support::client::json_of;
use crate::support::credentials::{admin, revoke};
use crate::support::keys::KeyPair;
use crate::support::token::{WITH_TOKENS, claims, with_jti};
use crate::support::{Api, Server, TestDb, eventually};

/// Revokes tokens as an operator does who has a database alone.
async fn end(client: &Client, jti: &str) {
    let revoke = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by) VALUES ('acme', 'jti', $1, 'operator')";
    client.execute(revoke, &[&jti]).await.unwrap();
}

/// Until somebody's statement that names the table, or any with none, waits for a lock.
async fn waits_for(client: &Client, table: &str) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'";
    eventually(Duration::from_secs(10), || async {
        let row = client.query_one(waiting, &[&table]).await.unwrap();
        let count: i64 = row.get(0);
        (count > 0).then_some(()).ok_or(count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_waits_for_its_tenants_settings_stores_nothing() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let client = db.connect().await;
    let mut asking = JoinSet::new();
    for (method, path, body) in [
        ("POST", "/v1/events", json!({"topic": "deal.won"})),
        ("PUT", "/v1/agents/a/state", json!({"a": 1})),
    ] {
        let what = format!("{method} {path}");
        let jti = format!("leaving-{method}");
        let holder = server.api.with_token(&with_jti("acme", &jti));
        let in_the_way = hold(&db, "tidewire.tenant_settings", AGAINST_ALL).await;
        let request = holder.request(method.parse::<Method>().unwrap(), path);
        let request = request.json(&body);
        asking.spawn(async move { json_of(request.send().await.unwrap()).await });
        waits_for(&client, "tenant_settings").await;
        end(&client, &jti).await;
        let began = Instant::now();
        let (status, problem) = asking.join_next().await.unwrap().unwrap();
        assert_eq!(status, 401, "{what}: {problem}");
        assert!(began.elapsed() < PROMISED, "{what}: {:?}", began.elapsed());
        in_the_way.batch_execute("ROLLBACK").await.unwrap();
    }
    let acme = admin(&server, "acme");
    let page = acme.page("earliest", "&topics=deal.*,agent.*").await;
    assert_eq!(page["events"], json!([]));
    server.stop().await;
}

async fn asked(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 4096];
    assert_ne!(stream.read(&mut head).await.unwrap(), 0);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_asks_for_a_token_of_a_new_key_ends_with_the_one_it_has() {
    let db = TestDb::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let arguments = [WITH_TOKENS, &["--jwks-url", &url]].concat();
    let none = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}";
    let first = async {
        let mut stream = asked(&listener).await;
        stream.write_all(none.as_bytes()).await.unwrap();
    };
    let (server, ()) = tokio::join!(Server::start_with(&db.url, &arguments), first);
    let client = db.connect().await;
    let pair = KeyPair::ed();
    let unknown = pair.sign(Some("new"), &serde_json::to_value(claims("acme")).unwrap());
    // Keys are not asked for at any time: until the provider is asked, and keeps it waiting.
    let stranger = server.api.with_token(&unknown);
    let mut strangers = JoinSet::new();
    strangers.spawn(async move {
        loop {
            stranger.try_get("/v1/status").await;
        }
    });
    let silent = asked(&listener).await;
    let mut ws = server
        .api
        .with_token(&with_jti("acme", "leaving"))
        .ws()
        .await;
    ws.subscribe("s", &["*"], "latest").await;
    ws.send(json!({"type": "auth", "token": unknown})).await;
    end(&client, "leaving").await;
    let began = Instant::now();
    assert_eq!(ws.close_code().await, 4401);
    assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
    strangers.shutdown().await;
    drop(silent);
    server.stop().await;
}

/// How many sockets are open, and how many events were handed to them.
async fn sockets(acme: &Api) -> (String, String) {
    let text = crate::metrics::text(acme).await;
    let value = |series: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(series));
        found
            .unwrap_or_else(|| panic!("{series}: {text}"))
            .to_owned()
    };
    (
        value("tidewire_connections{transport=\"websocket\"} "),
        value("tidewire_delivered_events_total{transport=\"websocket\"} "),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_keeps_no_connection() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, client) = (admin(&server, "acme"), db.connect().await);
    let write = "INSERT INTO tidewire.events (tenant, id, topic, data)
                 SELECT 'acme', n::text, 'big', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 400) AS n";
    client.batch_execute(write).await.unwrap();
    let mut ws = server
        .api
        .with_token(&with_jti("acme", "leaving"))
        .ws()
        .await;
    ws.send(json!({"type": "subscribe", "id": "s", "topics": ["big"], "after": "earliest"}))
        .await;
    // Until the line takes no more of the 40 MB: nothing was handed on for a while.
    let last = Mutex::new((String::new(), 0_u32));
    eventually(Duration::from_secs(20), || async {
        let (open, delivered) = sockets(&acme).await;
        assert_eq!(open, "1");
        let mut last = last.lock().unwrap();
        let looks = if last.0 == delivered { last.1 + 1 } else { 0 };
        *last = (delivered.clone(), looks);
        let is_stuck = delivered != "0" && looks > 25;
        is_stuck.then_some(()).ok_or(delivered)
    })
    .await;
    revoke(&acme, &json!({"jti": "leaving"})).await;
    eventually(PROMISED * 3, || async {
        let (open, delivered) = sockets(&acme).await;
        (open == "0").then_some(()).ok_or((open, delivered))
    })
    .await;
    server.stop().await;
}

/// Somebody's transaction that has this id of acme's, and does not end.
async fn claim(db: &TestDb, id: &str) -> Client {
    let other = db.connect().await;
    other.batch_execute("BEGIN").await.unwrap();
    let insert = "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('acme', $1, 'other')";
    other.execute(insert, &[&id]).await.unwrap();
    other
}

async fn stored(client: &Client, id: &str) -> i64 {
    let stored = "SELECT count(*) FROM tidewire.events WHERE id = $1";
    client.query_one(stored, &[&id]).await.unwrap().get(0)
}

/// What waits for somebody else's transaction is tried again and again: not for whom it may no longer be.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_waits_for_somebodys_transaction_is_not_made_later() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let client = db.connect().await;
    let in_the_way = claim(&db, "x").await;
    let holder = server.api.with_token(&with_jti("acme", "leaving"));
    let mut asking = JoinSet::new();
    let request = holder.request(Method::POST, "/v1/events");
    let request = request.json(&json!({"topic": "deal.won", "id": "x"}));
    asking.spawn(async move { json_of(request.send().await.unwrap()).await });
    waits_for(&client, "").await;
    end(&client, "leaving").await;
    let (status, problem) = asking.join_next().await.unwrap().unwrap();
    assert_eq!(status, 401, "{problem}");
    in_the_way.batch_execute("ROLLBACK").await.unwrap();
    // Behind it, if it were still there.
    let acme = admin(&server, "acme");
    acme.append(&json!({"topic": "deal.won", "id": "x2"})).await;
    assert_eq!(stored(&client, "x").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_socket_has_asked_for_is_not_made_after_its_credential() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let client = db.connect().await;
    let in_the_way = claim(&db, "x").await;
    let mut ws = server
        .api
        .with_token(&with_jti("acme", "leaving"))
        .ws()
        .await;
    ws.send(json!({"type": "append", "events": [{"topic": "deal.won", "id": "x"}]}))
        .await;
    waits_for(&client, "").await;
    end(&client, "leaving").await;
    assert_eq!(ws.close_code().await, 4401);
    // An attempt that was under way then is not what is asked here.
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
    eventually(Duration::from_secs(10), || async {
        let count: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (count == 0).then_some(()).ok_or(count)
    })
    .await;
    in_the_way.batch_execute("ROLLBACK").await.unwrap();
    let acme = admin(&server, "acme");
    acme.append(&json!({"topic": "deal.won", "id": "x", "data": 2}))
        .await;
    let kept = "SELECT data FROM tidewire.events WHERE id = 'x'";
    let kept: Option<serde_json::Value> = client.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, Some(json!(2)));
    server.stop().await;
}
