//! API keys that have ended: not counted, and forgotten after 90 days.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use crate::support::credentials::{admin, create_key, marks, try_create_key};
use crate::support::token::WITH_TOKENS;
use crate::support::{Process, Server, TestDb, eventually};

/// Keys of `acme`, one for each of `generate_series(1, count)`, which ended as the two say.
async fn insert(client: &Client, prefix: &str, count: i32, expires_at: &str, revoked_at: &str) {
    let statement = format!(
        "INSERT INTO tidewire.api_keys (key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at, revoked_by)
         SELECT '{prefix}' || lpad(n::text, {}, '0'), 'acme', '{prefix}', 'agent', '{{*}}', '{{}}', sha256('x'), {expires_at}, {revoked_at},
                CASE WHEN {revoked_at} IS NOT NULL THEN 'somebody' END FROM generate_series(1, {count}) AS n",
        16 - prefix.len(),
    );
    client.batch_execute(&statement).await.unwrap();
}

async fn count(client: &Client, what: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {what}");
    client.query_one(&count, &[]).await.unwrap().get(0)
}

/// Nobody announces or records, so that thousands are made quickly.
async fn quietly(client: &Client, is_quiet: bool) {
    let role = if is_quiet { "replica" } else { "origin" };
    let statement = format!("SET session_replication_role = {role}");
    client.batch_execute(&statement).await.unwrap();
}

async fn plan(client: &Client, statement: &str) -> String {
    let rows = client.query(statement, &[]).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

#[tokio::test]
async fn ended_keys_are_not_counted_nor_gone_through() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    quietly(&client, true).await;
    insert(&client, "aaa", 20_000, "NULL", "now()").await;
    insert(&client, "bbb", 20_000, "now() - interval '1 hour'", "NULL").await;
    insert(&client, "ccc", 9_998, "NULL", "NULL").await;
    insert(&client, "ddd", 1, "now() + interval '1 hour'", "NULL").await;
    client
        .batch_execute("ANALYZE tidewire.api_keys")
        .await
        .unwrap();
    let [creation, forgetting] = [
        "INSERT INTO tidewire.api_keys",
        "DELETE FROM tidewire.api_keys",
    ]
    .map(|begin| {
        let mut all = tidewire::access::ledger::STATEMENTS.iter();
        all.find(|one| one.trim_start().starts_with(begin)).unwrap()
    });
    // As the server prepares it, with values of its types.
    client
        .batch_execute(&format!("PREPARE creation AS {creation}"))
        .await
        .unwrap();
    let explained = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE creation
        ('0123456789abcdef', 'acme', 'n', 'agent', '{}', '{}', sha256('y'), NULL, 'test', 10000)";
    client.batch_execute("BEGIN").await.unwrap();
    let explained = plan(&client, explained).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    assert!(explained.contains("api_keys_in_force"), "{explained}");
    assert!(!explained.contains("Rows Removed"), "{explained}");
    client
        .batch_execute(&format!("PREPARE forgetting AS {forgetting}"))
        .await
        .unwrap();
    let explained = plan(&client, "EXPLAIN EXECUTE forgetting (1000, 90)").await;
    assert!(explained.contains("api_keys_by_end"), "{explained}");
    quietly(&client, false).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = admin(&server, "acme");
    create_key(&admin).await;
    let (status, problem) = try_create_key(&admin, &json!({"name": "n", "role": "agent"})).await;
    assert_eq!(status, 409, "{problem}");
    client
        .batch_execute("UPDATE tidewire.api_keys SET expires_at = now() WHERE key_id LIKE 'ddd%'")
        .await
        .unwrap();
    create_key(&admin).await;
    server.stop().await;
}

#[tokio::test]
async fn keys_are_forgotten_90_days_after_they_ended_and_stay_refused() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let (revoked, expired) = (create_key(&acme).await, create_key(&acme).await);
    let ends = [
        (
            &revoked.0,
            "revoked_at = now() - interval '91 days', revoked_by = 'somebody'",
        ),
        (&expired.0, "expires_at = now() - interval '91 days'"),
    ];
    for (id, end) in ends {
        let end = format!("UPDATE tidewire.api_keys SET {end} WHERE key_id = $1");
        client.execute(&end, &[id]).await.unwrap();
    }
    server.stop().await;
    quietly(&client, true).await;
    insert(&client, "aaa", 2_500, "now() - interval '91 days'", "NULL").await;
    // The first end counts.
    insert(&client, "bbb", 1, "now() - interval '91 days'", "now()").await;
    let stay = [
        ("ccc", "NULL", "now() - interval '89 days'"),
        ("ddd", "now() - interval '89 days'", "NULL"),
        ("eee", "now() + interval '1 day'", "NULL"),
        ("fff", "NULL", "NULL"),
    ];
    for (prefix, expires_at, revoked_at) in stay {
        insert(&client, prefix, 1, expires_at, revoked_at).await;
    }
    quietly(&client, false).await;
    let before = marks(&client).await;
    // One of them is in use by somebody else: the others go.
    let operator = db.connect().await;
    operator
        .batch_execute("BEGIN; SELECT FROM tidewire.api_keys WHERE key_id LIKE 'bbb%' FOR UPDATE")
        .await
        .unwrap();
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    eventually(Duration::from_secs(20), || async {
        let left = count(&client, "tidewire.api_keys").await;
        (left == 5).then_some(()).ok_or(left)
    })
    .await;
    let left = client
        .query("SELECT name FROM tidewire.api_keys ORDER BY name", &[])
        .await
        .unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["bbb", "ccc", "ddd", "eee", "fff"]);
    assert_eq!(marks(&client).await, before, "no server has to look again");
    let told = "tidewire.events WHERE topic = 'tidewire.audit.api_key.deleted'";
    assert_eq!(count(&client, told).await, 0, "nobody did anything");
    for (_, key) in [&revoked, &expired] {
        let (status, problem) = server.api.with_token(key).try_get("/v1/events").await;
        assert_eq!(status, 401, "{problem}");
    }
    let listed = admin(&server, "acme").get("/v1/api-keys").await;
    assert_eq!(listed["api_keys"].as_array().unwrap().len(), 5);
    // Who removes one that is in force is heard, and written down.
    client
        .batch_execute("DELETE FROM tidewire.api_keys WHERE name IN ('ccc', 'fff')")
        .await
        .unwrap();
    assert_eq!(marks(&client).await, before + 1);
    assert_eq!(count(&client, told).await, 2);
    operator.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_forgotten_keeps_nothing_else_from_it() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    insert(&client, "aaa", 1, "now() - interval '91 days'", "NULL").await;
    client
        .batch_execute(
            "INSERT INTO tidewire.revoked_tokens (tenant, claim, value, until) VALUES ('acme', 'sub', 'x', now() - interval '2 days');
             CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
             CREATE TRIGGER kept BEFORE DELETE ON tidewire.revoked_tokens FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await
        .unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let _server = Process::start_logging(&db.url, WITH_TOKENS, log.reopen().unwrap()).await;
    eventually(Duration::from_secs(5), || async {
        let left = count(&client, "tidewire.api_keys").await;
        (left == 0).then_some(()).ok_or(left)
    })
    .await;
    let log = std::fs::read_to_string(log.path()).unwrap();
    let told = |line: &&str| line.contains("WARN") && line.contains("are forgotten later");
    let told: Vec<&str> = log.lines().filter(told).collect();
    assert!(told.len() == 1 && told[0].contains("revocations"), "{log}");
}
