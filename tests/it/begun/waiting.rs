//! Administrators who wait, for a turn or for somebody's lock, when their credentials are revoked.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::limits::administration::administrative;
use crate::support::client::json_of;
use crate::support::credentials::{
    admin, create_key_with, revoke, revoke_key, try_revoke, try_revoke_key,
};
use crate::support::sql::rows_of;
use crate::support::token::{WITH_TOKENS, with_jti};
use crate::support::{Api, Server, TestDb, eventually};

/// What PROTOCOL promises.
pub const PROMISED: Duration = Duration::from_secs(1);

/// Keeps others from changing this table, and nobody from reading it.
const AGAINST_CHANGES: &str = "SHARE ROW EXCLUSIVE";
/// Keeps everybody from this table.
pub const AGAINST_ALL: &str = "ACCESS EXCLUSIVE";
/// Its administrators act on the whole server.
const OPERATED: &[&str] = &["--operator-tenant", "acme"];
/// Where events of a month ago stand.
const OLD_EVENTS: &str = "old events";

/// A request, and which table somebody holds that it needs.
type Row = (
    &'static str,
    &'static str,
    Value,
    &'static str,
    &'static str,
);

fn rows() -> Vec<Row> {
    let keys = ("tidewire.api_keys", AGAINST_CHANGES);
    let tokens = ("tidewire.revoked_tokens", AGAINST_CHANGES);
    let settings = ("tidewire.tenant_settings", AGAINST_CHANGES);
    let topics = ("tidewire.declared_topics", AGAINST_CHANGES);
    let rules = ("tidewire.retention_rules", AGAINST_CHANGES);
    let reading_settings = ("tidewire.tenant_settings", AGAINST_ALL);
    let reading_topics = ("tidewire.declared_topics", AGAINST_ALL);
    let reading_rules = ("tidewire.retention_rules", AGAINST_ALL);
    let consumers = ("tidewire.consumers", AGAINST_CHANGES);
    let watches = ("tidewire.watches", AGAINST_CHANGES);
    let reading_watches = ("tidewire.watches", AGAINST_ALL);
    let events = (OLD_EVENTS, AGAINST_ALL);
    let key = json!({"name": "left-behind", "role": "admin", "read": ["*"], "write": ["*"]});
    let none = Value::Null;
    [
        ("POST", "/v1/api-keys", key, keys),
        ("DELETE", "/v1/api-keys/{id}", none.clone(), keys),
        (
            "POST",
            "/v1/revocations",
            json!({"sub": "somebody"}),
            tokens,
        ),
        ("DELETE", "/v1/revocations/jti/old", none.clone(), tokens),
        (
            "PATCH",
            "/v1/settings",
            json!({"topic_mode": "declared"}),
            settings,
        ),
        ("PUT", "/v1/topics/deal.won", json!({"schema": {}}), topics),
        ("DELETE", "/v1/topics/deal.old", none.clone(), topics),
        ("GET", "/v1/settings", none.clone(), reading_settings),
        ("GET", "/v1/topics", none.clone(), reading_topics),
        ("GET", "/v1/retention", none.clone(), reading_rules),
        ("PUT", "/v1/retention/deal.won", json!({"days": 1}), rules),
        ("DELETE", "/v1/retention/old.*", none.clone(), rules),
        (
            "POST",
            "/v1/admin/consumers/watch/pause",
            none.clone(),
            consumers,
        ),
        (
            "POST",
            "/v1/admin/consumers/watch/resume",
            none.clone(),
            consumers,
        ),
        ("GET", "/v1/watches", none.clone(), reading_watches),
        ("GET", "/v1/watches/old", none.clone(), reading_watches),
        (
            "PUT",
            "/v1/watches/new",
            json!({"topics": ["deal.*"], "within_s": 60}),
            watches,
        ),
        ("DELETE", "/v1/watches/old", none.clone(), watches),
        ("GET", "/v1/subjects/s", none.clone(), events),
        ("DELETE", "/v1/subjects/s", none, events),
    ]
    .map(|(method, path, body, (table, mode))| (method, path, body, table, mode))
    .into()
}

/// Requests for which nobody's lock on a table is waited for; or on one without which no server hears of a revocation.
const WITHOUT_ROW: [(&str, &str); 8] = [
    ("GET", "/v1/status"),
    ("POST", "/v1/admin/breaker/reset"),
    ("POST", "/v1/admin/sessions/drop-idle"),
    ("GET", "/v1/admin/log-level"),
    ("PUT", "/v1/admin/log-level"),
    ("POST", "/v1/validate"),
    ("GET", "/v1/api-keys"),
    ("GET", "/v1/revocations"),
];

fn every_administrative_route_is_held_up() {
    let rows = rows();
    for (path, method) in administrative() {
        if method == Method::HEAD {
            continue;
        }
        let is_of = |row: &Row| {
            let (parts, wanted) = (row.1.split('/'), path.split('/'));
            let mut pairs = parts.clone().zip(wanted.clone());
            row.0 == method.as_str()
                && parts.count() == wanted.count()
                && pairs.all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
        };
        let has_row = rows.iter().any(is_of);
        let needs_none = WITHOUT_ROW.contains(&(method.as_str(), path));
        assert!(has_row != needs_none, "{method} {path}: a row for it");
    }
}

/// What the requests are about: the id of a key.
async fn prepare(admin: &Api, client: &Client) -> String {
    let old = "SET session_replication_role = replica;
               INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject)
               SELECT clock_timestamp() - interval '30 days', 'acme', n::text, 'a', 's' FROM generate_series(1, 3) AS n;
               SET session_replication_role = origin";
    client.batch_execute(old).await.unwrap();
    revoke(admin, &json!({"jti": "old"})).await;
    for (path, body) in [
        ("/v1/topics/deal.old", json!({})),
        ("/v1/retention/old.*", json!({"days": 9})),
        (
            "/v1/watches/old",
            json!({"topics": ["deal.*"], "within_s": 60}),
        ),
    ] {
        let request = admin.request(Method::PUT, path).json(&body);
        assert!(request.send().await.unwrap().status().is_success());
    }
    let open = admin.request(Method::PATCH, "/v1/settings");
    let open = open.json(&json!({"topic_mode": "open"})).send().await;
    assert_eq!(open.unwrap().status(), 200);
    let other = json!({"name": "other", "role": "agent", "read": ["*"], "write": ["*"]});
    create_key_with(admin, &other).await.0
}

pub async fn hold(db: &TestDb, table: &str, mode: &str) -> Client {
    let client = db.connect().await;
    let chunk = "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
                  WHERE hypertable_schema = 'tidewire' AND hypertable_name = 'events' ORDER BY range_start LIMIT 1";
    let chunk: String = client.query_one(chunk, &[]).await.unwrap().get(0);
    let table = table.replace(OLD_EVENTS, &chunk);
    let lock = format!("BEGIN; LOCK TABLE {table} IN {mode} MODE");
    client.batch_execute(&lock).await.unwrap();
    client
}

/// Backends of administrators' requests that are where somebody is in their way.
async fn held_up(client: &Client) -> i64 {
    let held_up = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND application_name IN ('tidewire changes', 'tidewire history', 'tidewire settings') AND wait_event_type = 'Lock'";
    client.query_one(held_up, &[]).await.unwrap().get(0)
}

async fn is_held_up(client: &Client) {
    eventually(Duration::from_secs(5), || async {
        let count = held_up(client).await;
        (count > 0).then_some(()).ok_or(count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_up_when_it_is_revoked_does_and_sees_nothing() {
    every_administrative_route_is_held_up();
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &[WITH_TOKENS, OPERATED].concat()).await;
    let (acme, client) = (admin(&server, "acme"), db.connect().await);
    let id = prepare(&acme, &client).await;
    let mut asking = JoinSet::new();
    for (number, (method, path, body, table, mode)) in rows().into_iter().enumerate() {
        let what = format!("{method} {path}");
        // By a credential that an operator can revoke meanwhile.
        let jti = format!("leaving-{number}");
        let wanted = json!({"name": jti, "role": "admin", "read": ["*"], "write": ["*"]});
        let (credential, end) = if table == "tidewire.api_keys" {
            let end = format!(
                "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_by) VALUES ('acme', 'jti', '{jti}', 'operator')"
            );
            (with_jti("acme", &jti), end)
        } else {
            let (key_id, key) = create_key_with(&acme, &wanted).await;
            let end = format!(
                "UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'operator' WHERE key_id = '{key_id}'"
            );
            (key, end)
        };
        let holder = server.api.with_token(&credential);
        let in_the_way = hold(&db, table, mode).await;
        let request = holder.request(method.parse().unwrap(), &path.replace("{id}", &id));
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        asking.spawn(async move { json_of(request.send().await.unwrap()).await });
        is_held_up(&client).await;
        client.batch_execute(&end).await.unwrap();
        let began = Instant::now();
        let (status, problem) = asking.join_next().await.unwrap().unwrap();
        let took = began.elapsed();
        assert_eq!(status, 401, "{what}: {problem}");
        assert!(took < PROMISED, "{what}: {took:?}");
        // As whoever is in the way sees it: others would wait.
        let before = rows_of(&in_the_way, "acme").await;
        in_the_way.batch_execute("ROLLBACK").await.unwrap();
        eventually(Duration::from_secs(5), || async {
            let left = held_up(&client).await;
            (left == 0).then_some(()).ok_or(left)
        })
        .await;
        // Over the connections that it used.
        let status = acme.request(Method::DELETE, "/v1/topics/deal.none");
        assert_eq!(status.send().await.unwrap().status(), 404, "{what}");
        assert_eq!(rows_of(&client, "acme").await, before, "{what}");
    }
    server.stop().await;
}

/// Changes of a tenant's credentials are made one by one: what one of them has ended is in force before the next is made.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_by_the_change_before_its_own_makes_none() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, client) = (admin(&server, "acme"), db.connect().await);
    let mut let_in = 0;
    for round in 0..5 {
        let jti = format!("leaving-{round}");
        let leaving = server.api.with_token(&with_jti("acme", &jti));
        let in_the_way = hold(&db, "tidewire.revoked_tokens", AGAINST_CHANGES).await;
        let wanted = json!({ "jti": jti });
        let revoking = async { try_revoke(&acme, &wanted).await.0 };
        let creating = async {
            is_held_up(&client).await;
            let key =
                json!({"name": "left-behind", "role": "admin", "read": ["*"], "write": ["*"]});
            let request = leaving.request(Method::POST, "/v1/api-keys").json(&key);
            let answer = request.send().await.unwrap();
            // Whoever is not let in takes nothing of the tenant's rate.
            let was_let_in = answer.headers().contains_key("ratelimit-policy");
            (answer.status(), was_let_in)
        };
        let going = async {
            is_held_up(&client).await;
            // It comes to its place meanwhile.
            for _ in 0..20 {
                acme.try_get("/v1/retention").await;
            }
            in_the_way.batch_execute("ROLLBACK").await.unwrap();
        };
        let (revoked, (created, was_let_in), ()) = tokio::join!(revoking, creating, going);
        assert_eq!((revoked.as_u16(), created.as_u16()), (201, 401));
        let_in += u32::from(was_let_in);
        let keys = acme.get("/v1/api-keys").await;
        assert_eq!(keys["api_keys"], json!([]), "round {round}");
    }
    assert!(let_in > 0, "it came too late in every round");
    server.stop().await;
}

/// Who revokes itself is told so: what was done before the end stays, and holds no secret.
#[tokio::test(flavor = "multi_thread")]
async fn who_revokes_itself_is_answered() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    for round in 0..30 {
        let jti = format!("own-{round}");
        let own = server.api.with_token(&with_jti("acme", &jti));
        revoke(&own, &json!({ "jti": jti })).await;
        assert_eq!(try_revoke(&own, &json!({ "jti": jti })).await.0, 401);
        let wanted = json!({"name": "own", "role": "admin", "read": ["*"], "write": ["*"]});
        let (id, key) = create_key_with(&acme, &wanted).await;
        let own = server.api.with_token(&key);
        revoke_key(&own, &id).await;
        assert_eq!(try_revoke_key(&own, &id).await, 401);
    }
    server.stop().await;
}
