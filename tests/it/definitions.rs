//! Functions, triggers, views and grants: applied where they differ, and without stopping anybody.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tidewire::pg::Connector;
use tidewire::pg::requirements::Versions;
use tidewire::pg::schema::{self, Plan, SchemaError};
use tidewire::tasks::Tasks;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_postgres::Client;

use crate::crash::Cluster;
use crate::support::{Server, TestDb};

/// How soon what is in nobody's way must be done.
const SOON: Duration = Duration::from_secs(10);
/// How long a writer may be held up: two attempts and some.
const PROMPT: Duration = Duration::from_secs(2);

async fn connect(url: &str) -> Client {
    let connector = Connector::parse(url, &Tasks::new()).unwrap();
    connector.connect("migrate").await.unwrap()
}

async fn apply(url: &str, plan: Plan) -> Result<Versions, SchemaError> {
    schema::apply(&mut connect(url).await, plan).await
}

/// Which transaction has written each function, trigger and view.
async fn written(client: &Client) -> Vec<(String, String)> {
    let rows = client
        .query(
            "SELECT proname::text, xmin::text FROM pg_proc WHERE pronamespace = 'tidewire'::regnamespace
             UNION ALL
             SELECT tgname, xmin::text FROM pg_trigger WHERE tgrelid = 'tidewire.events'::regclass
             UNION ALL
             SELECT ev_class::regclass::text, xmin::text FROM pg_rewrite
              WHERE ev_class IN (SELECT oid FROM pg_class WHERE relnamespace = 'tidewire'::regnamespace)
             ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn a_second_run_applies_no_definition() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let before = written(&client).await;
    assert!(before.len() > 20, "{before:?}");
    apply(&db.url, Plan::default()).await.unwrap();
    assert_eq!(written(&client).await, before);
}

#[tokio::test]
async fn a_function_changed_by_hand_comes_back_when_all_are_applied() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let changed =
        "CREATE OR REPLACE FUNCTION tidewire.floor_class() RETURNS integer LANGUAGE sql RETURN 1";
    client.batch_execute(changed).await.unwrap();
    let class = async || -> i32 {
        let row = client.query_one("SELECT tidewire.floor_class()", &[]).await;
        row.unwrap().get(0)
    };
    apply(&db.url, Plan::default()).await.unwrap();
    assert_eq!(class().await, 1, "nobody has looked for it");
    let migrated = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["migrate", "--definitions", "--database-url", &db.url])
        .output()
        .await
        .unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    assert_ne!(class().await, 1);
}

#[tokio::test]
async fn what_is_applied_anew_is_granted_anew() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute(
            "DROP FUNCTION tidewire.new_id();
             DELETE FROM tidewire.definitions WHERE file = 'functions/new_id.sql'",
        )
        .await
        .unwrap();
    apply(&db.url, Plan::default()).await.unwrap();
    let may = "SELECT has_function_privilege('tidewire_loader', 'tidewire.new_id()', 'EXECUTE'),
                      has_function_privilege('tidewire_analyst', 'tidewire.new_id()', 'EXECUTE')";
    let row = client.query_one(may, &[]).await.unwrap();
    let (loader, everybody): (bool, bool) = (row.get(0), row.get(1));
    assert!(loader && !everybody);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_created_later_get_their_grants() {
    let cluster = Cluster::start().await;
    let client = connect(&cluster.url).await;
    client
        .batch_execute("DROP ROLE tidewire_analyst")
        .await
        .unwrap();
    apply(&cluster.url, Plan::default()).await.unwrap();
    client
        .batch_execute("CREATE ROLE tidewire_analyst")
        .await
        .unwrap();
    apply(&cluster.url, Plan::default()).await.unwrap();
    let may = "SELECT has_table_privilege('tidewire_analyst', 'tidewire.my_events', 'SELECT')";
    let may: bool = client.query_one(may, &[]).await.unwrap().get(0);
    assert!(may);
    cluster.stop().await;
}

const APPEND: &str = "SELECT tidewire.append('free')";
/// As far as the tables of V1 go.
const INSERT: &str = "SET tidewire.preparing = 'open'; INSERT INTO tidewire.events (tenant, topic) VALUES ('dev', 'free')";

/// Writes until `ended`, each time promptly.
async fn write_until(client: &Client, write: &str, mut ended: impl FnMut() -> bool) {
    while !ended() {
        let written = client.batch_execute(write);
        let written = tokio::time::timeout(PROMPT, written).await;
        written.expect("a writer is held up").unwrap();
    }
}

/// Every definition again, while a transaction that did this is open.
async fn apply_beside(sql: &str, file: &str) {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let open = db.connect().await;
    open.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    let pid: i32 = open
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let plan = Plan {
        everything: true,
        patience: Duration::from_secs(3),
    };
    let url = db.url.clone();
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let applying = tokio::spawn(async move { apply(&url, plan).await });
    write_until(&client, APPEND, || applying.is_finished()).await;
    let said = applying.await.unwrap().unwrap_err().to_string();
    assert!(said.contains(file), "{said}");
    assert!(said.contains(&format!("process {pid} (")), "{said}");
    assert!(said.contains("pg_terminate_backend"), "{said}");
    open.batch_execute("ROLLBACK").await.unwrap();
    apply(&db.url, plan).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_has_to_wait_lets_writers_pass_and_says_for_whom() {
    apply_beside("SELECT tidewire.append('a')", "sql/triggers/events.sql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_has_to_wait_lets_writers_pass_and_says_for_whom() {
    let reads = "SELECT count(*) FROM tidewire.my_events";
    apply_beside(reads, "sql/views/my_events.sql").await;
}

/// As where V3 meets a transaction that has read what it changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_to_wait_says_for_whom_and_goes_on() {
    let db = TestDb::new().await;
    let open = db.connect().await;
    open.batch_execute(
        "ALTER TABLE tidewire.epochs DROP database_oid, DROP events_oid;
         DROP TABLE tidewire.definitions;
         -- And all that came later.
         DROP TABLE tidewire.api_keys, tidewire.revoked_tokens, tidewire.credential_changes, tidewire.tenant_settings,
            tidewire.declared_topics, tidewire.setting_changes;
         ALTER TABLE tidewire.tenant_roles DROP is_admin CASCADE;
         CREATE OR REPLACE FUNCTION tidewire.check_admission(tenant text, topic text, gdpr jsonb)
         RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false;
         DROP TABLE tidewire.erased_ids, tidewire.erasures, tidewire.erasure_changes, tidewire.erased_tenants,
            tidewire.retention_rules, tidewire.retained_tenants, tidewire.retention_turns, tidewire.sql_appends,
            tidewire.watched, tidewire.watches, tidewire.watch_clock, tidewire.consumers CASCADE;
         DROP SEQUENCE tidewire.watch_changes;
         ALTER TABLE tidewire.events DROP erased_at CASCADE;
         DELETE FROM tidewire.schema_migrations WHERE version >= 3",
    )
    .await
    .unwrap();
    open.batch_execute("BEGIN; SELECT count(*) FROM tidewire.epochs")
        .await
        .unwrap();
    let pid: i32 = open
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let mut migrating = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["migrate", "--database-url", &db.url])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(migrating.stderr.take().unwrap()).lines();
    let warned = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("WARN") && line.contains(&format!("process {pid} (")) {
                return true;
            }
        }
        false
    };
    let warned = tokio::time::timeout(Duration::from_secs(10), warned).await;
    assert!(warned.expect("a line"));
    let client = db.connect().await;
    let mut rounds = 0..20_u32;
    write_until(&client, INSERT, || rounds.next().is_none()).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    assert!(migrating.wait().await.unwrap().success());
    let epochs: i64 = client
        .query_one("SELECT count(*) FROM tidewire.epochs", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(epochs, 1, "its life goes on");
}

/// A second server starts, and both write, while a transaction that did this is open.
async fn start_beside(sql: &str) {
    let db = TestDb::new().await;
    let first = Server::start(&db).await;
    first.api.append(&json!({"topic": "warm"})).await;
    let open = db.connect().await;
    open.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    let second = tokio::time::timeout(SOON, Server::start(&db)).await;
    let second = second.expect("it starts, whatever is open");
    let written = async {
        first.api.append(&json!({"topic": "free"})).await;
        second.api.append(&json!({"topic": "free"})).await;
    };
    let written = tokio::time::timeout(Duration::from_secs(3), written).await;
    written.expect("both write");
    open.batch_execute("ROLLBACK").await.unwrap();
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_beside_an_open_writer_stops_nobody() {
    start_beside("SELECT tidewire.append('a')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_beside_an_open_analyst_stops_nobody() {
    start_beside("SELECT count(*) FROM tidewire.my_events").await;
}

/// As an application's transaction does that is the first of the day, while no server is there to make chunks ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_while_a_chunk_cannot_be_made_ahead() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute(
            "SELECT public.drop_chunks('tidewire.events', older_than => clock_timestamp() + interval '9 days')",
        )
        .await
        .unwrap();
    let open = db.connect().await;
    open.batch_execute("BEGIN; LOCK TABLE tidewire.events IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let server = tokio::time::timeout(SOON, Server::start(&db)).await;
    let server = server.expect("it starts");
    open.batch_execute("ROLLBACK").await.unwrap();
    server.api.append(&json!({"topic": "a"})).await;
    server.stop().await;
}
