//! What stands in the tables of credentials and settings and should not, and who else uses them: nobody else's concern.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::client::json_of;
use crate::support::credentials::{create_key, marks};
use crate::support::sql::state_of;
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Server, TestDb, eventually};

async fn ask(api: &Api, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = api.request(method, path).json(body);
    json_of(request.send().await.unwrap()).await
}

async fn reads(server: &Server, credential: &str) -> StatusCode {
    let api = server.api.with_token(credential);
    api.try_get("/v1/events?limit=1").await.0
}

#[tokio::test]
async fn a_row_that_says_nothing_is_nobody_elses_concern() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (token("acme"), token("beta"));
    let (acme, beta) = (server.api.with_token(&acme), server.api.with_token(&beta));
    let (spoilt, spoilt_key) = create_key(&acme).await;
    let (revoked, revoked_key) = create_key(&beta).await;
    for key in [&spoilt_key, &revoked_key] {
        assert_eq!(reads(&server, key).await, 200);
    }
    for nonsense in ["read_topics = '{NULL}'", "expires_at = '-infinity'"] {
        let spoil = format!("UPDATE tidewire.api_keys SET {nonsense} WHERE key_id = '{spoilt}'");
        client.batch_execute(&spoil).await.unwrap();
    }
    let spoil = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, revoked_at, until)
                 VALUES ('acme', 'sub', 'gone', 'infinity', 'infinity');
                 INSERT INTO tidewire.tenant_settings (tenant, consent_topics) VALUES ('acme', '{NULL}')";
    client.batch_execute(spoil).await.unwrap();
    let revoke = format!(
        "UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'x' WHERE key_id = '{revoked}'"
    );
    client.batch_execute(&revoke).await.unwrap();
    for key in [&spoilt_key, &revoked_key] {
        eventually(Duration::from_secs(2), async || {
            let status = reads(&server, key).await;
            (status == 401).then_some(()).ok_or(status)
        })
        .await;
    }
    for _ in 0..20 {
        let (status, answer) = acme.try_append(&json!({"topic": "a.b"})).await;
        assert!(status.is_server_error(), "{answer}");
        assert_eq!(beta.try_get("/v1/api-keys").await.0, 200);
    }
    let (status, listed) = acme.try_get("/v1/revocations").await;
    assert_eq!(status, 200, "{listed}");
    assert_eq!(listed["revocations"][0]["until"], Value::Null);
    server.stop().await;
    // And a server starts.
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    assert_eq!(reads(&server, &token("beta")).await, 200);
    server.stop().await;
}

#[tokio::test]
async fn an_open_change_of_a_credential_keeps_nobody_elses_from_being_looked_up() {
    let db = TestDb::new().await;
    let (client, open) = (db.connect().await, db.connect().await);
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = |tenant| server.api.with_token(&token(tenant));
    let (id, _) = create_key(&admin("acme")).await;
    let (_, unseen) = create_key(&admin("gamma")).await;
    let held = format!(
        "BEGIN; UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = 'x' WHERE key_id = '{id}'"
    );
    open.batch_execute(&held).await.unwrap();
    let acme = admin("acme");
    let path = format!("/v1/api-keys/{id}");
    let blocked = ask(&acme, Method::DELETE, &path, &Value::Null);
    let looked_up = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually(Duration::from_secs(5), async || {
            let waits: i64 = client.query_one(waits, &[]).await.unwrap().get(0);
            (waits > 0).then_some(()).ok_or("nobody waits")
        })
        .await;
        reads(&server, &unseen).await
    };
    let ((refused, _), looked_up) = tokio::join!(blocked, looked_up);
    assert_eq!((refused.as_u16(), looked_up.as_u16()), (503, 200));
    open.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_revokes_what_is_not_there_makes_no_server_look() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token("acme"));
    let (id, _) = create_key(&admin).await;
    let before = marks(&client).await;
    let unknown = "/v1/api-keys/0000000000000000";
    let (status, _) = ask(&admin, Method::DELETE, unknown, &Value::Null).await;
    assert_eq!((status.as_u16(), marks(&client).await), (404, before));
    for _ in 0..2 {
        let path = format!("/v1/api-keys/{id}");
        let (status, _) = ask(&admin, Method::DELETE, &path, &Value::Null).await;
        assert_eq!((status.as_u16(), marks(&client).await), (204, before + 1));
    }
    server.stop().await;
}

#[tokio::test]
async fn tables_of_which_servers_remember_rows_are_not_truncated() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for table in [
        "api_keys",
        "revoked_tokens",
        "tenant_settings",
        "declared_topics",
    ] {
        let truncate = format!("TRUNCATE tidewire.{table}");
        assert_eq!(state_of(client.batch_execute(&truncate).await), "TW405");
    }
}

#[tokio::test]
async fn a_table_that_was_written_anew_gives_no_topic_the_schema_of_another() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    let declare = "INSERT INTO tidewire.tenant_settings (tenant, topic_mode) VALUES ('acme', 'declared');
        INSERT INTO tidewire.declared_topics (tenant, pattern) VALUES ('acme', 'a.a'), ('acme', 'b.b'), ('acme', 'c.c')";
    client.batch_execute(declare).await.unwrap();
    let write = async |topic: &str| acme.try_append(&json!({"topic": topic})).await.0;
    eventually(Duration::from_secs(5), async || {
        let status = write("x.x").await;
        (status == 422).then_some(()).ok_or(status)
    })
    .await;
    let move_rows =
        "UPDATE tidewire.declared_topics SET description = 'moved' WHERE pattern = 'a.a'";
    client.batch_execute(move_rows).await.unwrap();
    let anew = "VACUUM FULL tidewire.declared_topics";
    client.batch_execute(anew).await.unwrap();
    let path = "/v1/topics/d.d";
    let (status, answer) = ask(&acme, Method::PUT, path, &json!({})).await;
    assert_eq!(status, 204, "{answer}");
    for (topic, expected) in [("a.a", 201), ("b.b", 201), ("c.c", 201), ("d.d", 201)] {
        assert_eq!(write(topic).await, expected, "{topic}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_upload_goes_on_as_the_tenant_has_decided_meanwhile() {
    let db = TestDb::new().await;
    let rate = [WITH_TOKENS, &["--tenant-events-rate", "20:20"]].concat();
    let server = Server::start_with(&db.url, &rate).await;
    let acme = server.api.with_token(&token("acme"));
    let lines = "{\"topic\":\"a.b\"}\n".repeat(200);
    let upload = acme.request(Method::POST, "/v1/events").body(lines);
    let upload = upload.header("content-type", "application/x-ndjson");
    let mut answer = upload.send().await.unwrap();
    // It has begun, and is sent whole.
    let mut results = answer.chunk().await.unwrap().unwrap().to_vec();
    let consent = json!({"consent": "require"});
    let (status, _) = ask(&acme, Method::PATCH, "/v1/settings", &consent).await;
    assert_eq!(status, 200);
    let answered_at = Instant::now();
    while let Some(more) = answer.chunk().await.unwrap() {
        results.extend(more);
    }
    let results = String::from_utf8(results).unwrap();
    let refused = results.matches("consent-required").count();
    // Those on their way may still be stored, and there were twenty at once.
    assert!(refused > 120, "{refused} {:?}", answered_at.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_takes_room() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    for (schema, expected) in [
        (json!(vec![0; 200_000]), 413),
        (json!({"enum": vec![0; 40_000]}), 422),
        // Short as it is sent, and a megabyte where the database writes it out.
        (json!({"enum": vec![1e308; 3_000]}), 422),
    ] {
        let body = json!({"schema": schema});
        let (status, answer) = ask(&acme, Method::PUT, "/v1/topics/a.b", &body).await;
        assert_eq!(status, expected, "{answer}");
    }
    server.stop().await;
}

/// Times that no calendar of ours has, in every column of this table.
async fn spoil_times(client: &Client, table: &str, columns: &[&str], tenant: &str) {
    for column in columns {
        for time in ["infinity", "-infinity", "270000-01-01"] {
            let spoil =
                format!("UPDATE {table} SET {column} = '{time}' WHERE tenant = '{tenant}' AND ");
            let spoil = match table {
                "tidewire.api_keys" => format!("{spoil} name = '{column} {time}'"),
                "tidewire.revoked_tokens" => format!("{spoil} value = '{column} {time}'"),
                _ => format!("{spoil} true"),
            };
            let changed = client.execute(&spoil, &[]).await.unwrap();
            assert_eq!(changed, 1, "{spoil}");
        }
    }
}

#[tokio::test]
async fn a_time_that_is_none_keeps_no_list_from_being_read() {
    const OF_KEYS: [&str; 4] = ["created_at", "expires_at", "revoked_at", "last_used_at"];
    const OF_TOKENS: [&str; 2] = ["revoked_at", "until"];
    let db = TestDb::new().await;
    let client = db.connect().await;
    let fill = "INSERT INTO tidewire.api_keys (key_id, tenant, name, role, read_topics, write_topics, secret_sha256, revoked_at, revoked_by)
        SELECT 'aaaaaaaaaaaaaa' || lpad(row_number() OVER ()::text, 2, '0'), 'acme', c || ' ' || t, 'agent', '{NULL}', '{{*}}', sha256('x'), now(), 'x'
          FROM unnest($1::text[]) AS c, unnest('{infinity,-infinity,270000-01-01}'::text[]) AS t";
    client.execute(fill, &[&OF_KEYS.as_slice()]).await.unwrap();
    let fill = "INSERT INTO tidewire.revoked_tokens (tenant, claim, value)
        SELECT 'acme', 'sub', c || ' ' || t FROM unnest($1::text[]) AS c, unnest('{infinity,-infinity,270000-01-01}'::text[]) AS t";
    let of_tokens = OF_TOKENS.as_slice();
    client.execute(fill, &[&of_tokens]).await.unwrap();
    let fill = "INSERT INTO tidewire.tenant_settings (tenant, consent) VALUES ('acme', 'optional');
        INSERT INTO tidewire.declared_topics (tenant, pattern) VALUES ('acme', 'a.b')";
    client.batch_execute(fill).await.unwrap();
    spoil_times(&client, "tidewire.api_keys", &OF_KEYS, "acme").await;
    spoil_times(&client, "tidewire.revoked_tokens", &OF_TOKENS, "acme").await;
    spoil_times(&client, "tidewire.tenant_settings", &["changed_at"], "acme").await;
    spoil_times(&client, "tidewire.declared_topics", &["changed_at"], "acme").await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    // Two of them ended long ago, and are forgotten.
    let listed = eventually(Duration::from_secs(5), async || {
        let listed = acme.get("/v1/api-keys").await["api_keys"].clone();
        let count = listed.as_array().unwrap().len();
        (count == 10).then_some(listed).ok_or(count)
    })
    .await;
    for key in listed.as_array().unwrap() {
        let (column, time) = key["name"].as_str().unwrap().split_once(' ').unwrap();
        let shown = match (column, time) {
            // It never ends.
            ("expires_at", "infinity") => Value::Null,
            (_, "-infinity") => json!("0001-01-01T00:00:00Z"),
            _ => json!("9999-12-31T23:59:59Z"),
        };
        assert_eq!(key[column], shown, "{key}");
        assert_eq!([&key["read"], &key["write"]], [&json!([""]); 2]);
        let path = format!("/v1/subjects/{column}%20{time}");
        let held = acme.get(&path).await;
        assert_eq!(held["credentials"]["api_keys"][0]["id"], key["id"]);
    }
    // What ended at the beginning of time is not in force.
    let listed = acme.get("/v1/revocations").await;
    assert_eq!(listed["revocations"].as_array().unwrap().len(), 5);
    let held = acme.get("/v1/subjects/until%20270000-01-01").await;
    let held = &held["credentials"]["revocations"][0];
    assert_eq!(held["until"], "9999-12-31T23:59:59Z");
    for (path, field) in [("/v1/settings", ""), ("/v1/topics", "/topics/0")] {
        let answer = acme.get(path).await;
        let changed_at = answer.pointer(&format!("{field}/changed_at"));
        assert_eq!(changed_at, Some(&json!("9999-12-31T23:59:59Z")), "{answer}");
    }
    let (status, answer) = acme.try_append(&json!({"topic": "a.b"})).await;
    assert_eq!(status, 201, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn what_another_rule_of_the_database_refuses_is_not_called_too_long() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let rule =
        "ALTER TABLE tidewire.declared_topics ADD CONSTRAINT anothers CHECK (pattern <> 'no.no')";
    client.batch_execute(rule).await.unwrap();
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = server.api.with_token(&token("acme"));
    let (status, answer) = ask(&acme, Method::PUT, "/v1/topics/no.no", &json!({})).await;
    assert_eq!(status, 500, "{answer}");
    server.stop().await;
}
