//! Ways to change, forge or disturb another tenant's events.

use super::fixture::{Tenants, try_all};
use super::session::Session;

/// None of these changes anything of the log. `ok`: it is allowed and harmless.
const CHANGING: &[(&str, &str)] = &[
    ("42501", "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('tenant-other', 'x', 'a.b')"),
    ("42501", "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('mine', 'x', 'a.b') ON CONFLICT DO NOTHING"),
    ("42501", "COPY tidewire.events (tenant, id, topic) FROM STDIN"),
    ("42501", "UPDATE tidewire.events SET tenant = 'mine'"),
    ("42501", "DELETE FROM tidewire.events"),
    ("42501", "TRUNCATE tidewire.events"),
    ("42501", "MERGE INTO tidewire.events AS e USING (VALUES (1)) AS v(n) ON e.seq = v.n WHEN MATCHED THEN DELETE"),
    ("42501", "SET tidewire.erasure = 'open'; DELETE FROM tidewire.events"),
    ("42501", "INSERT INTO tidewire.my_events (topic, id) VALUES ('a.b', 'x')"),
    ("42501", "UPDATE tidewire.my_events SET topic = 'a.b'"),
    ("42501", "DELETE FROM tidewire.my_events"),
    ("42501", "INSERT INTO tidewire.tenant_roles VALUES (session_user, 'tenant-other')"),
    ("42501", "UPDATE tidewire.tenant_roles SET tenant = 'tenant-other'"),
    ("42501", "UPDATE tidewire.tenant_roles SET is_admin = true"),
    ("42501", "DELETE FROM tidewire.tenant_roles"),
    ("42501", "DELETE FROM tidewire.idempotency_keys"),
    ("42501", "UPDATE tidewire.log SET retained_seq = 99999"),
    ("42501", "INSERT INTO tidewire.epochs SELECT 2, 0, now(), 1, 1, 'x', 1, 1"),
    ("42501", "SELECT nextval('tidewire.events_seq')"),
    ("42501", "SELECT setval('tidewire.events_seq', 1)"),
    ("42501", "SELECT currval('tidewire.events_seq')"),
    ("42501", "SELECT last_value FROM tidewire.events_seq"),
    ("42501", "SELECT setval('tidewire.events_clock', 99999999999999)"),
    // Functions that are not for it.
    ("42501", "SELECT tidewire.retain('0 days')"),
    ("42501", "SELECT tidewire.retain_oldest('0 days')"),
    ("42501", "SELECT tidewire.expire_keys()"),
    ("42501", "SELECT tidewire.begin_epoch()"),
    ("42501", "SELECT tidewire.prepare_chunks()"),
    ("42501", "SELECT tidewire.close_chunks()"),
    ("42501", "SELECT * FROM tidewire.watermark()"),
    ("42501", "SELECT tidewire.has_short_writer(1)"),
    ("42501", "SELECT tidewire.wake_servers()"),
    ("42501", "SELECT tidewire.writing_tenant('tenant-other')"),
    ("42501", "SELECT tidewire.idempotency_key('tenant-other', 'x')"),
    ("42501", "SELECT tidewire.create_tenant_role('x', 'tenant-other')"),
    ("42501", "SELECT tidewire.drop_tenant_role(session_user)"),
    ("42501", "SELECT * FROM tidewire.append_many('{tenant-other}', '{x}', '{a}', '{x}', '{x}', '{low}', '{now}', '{x}', '{}', '{x}', '{1}', '{x}', '{x}', '{1}', '{0}')"),
    // The log's triggers, on a table of one's own.
    ("42501", "CREATE TEMP TABLE events (LIKE tidewire.events);
        CREATE TRIGGER t AFTER INSERT ON events REFERENCING NEW TABLE AS appended FOR EACH STATEMENT EXECUTE FUNCTION tidewire.record_append()"),
    ("42501", "CREATE TEMP TABLE t (n int); CREATE TRIGGER t BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION tidewire.claim_floor()"),
    ("42501", "CREATE TRIGGER t AFTER INSERT ON tidewire.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    ("42501", "CREATE POLICY p ON tidewire.events USING (true)"),
    // The schema.
    ("42501", "CREATE TABLE tidewire.t (n int)"),
    ("42501", "CREATE FUNCTION tidewire.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    ("42501", "CREATE TABLE public.t (n int)"),
    ("42501", "CREATE FUNCTION public.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT 1::text'"),
    ("42501", "CREATE SCHEMA s"),
    ("42501", "CREATE TABLE _timescaledb_internal.t (n int)"),
    ("42501", "CREATE OR REPLACE VIEW tidewire.my_events AS SELECT 1"),
    ("42501", "CREATE INDEX ON tidewire.events (topic)"),
    ("42501", "ALTER TABLE tidewire.events DISABLE TRIGGER ALL"),
    ("42501", "ALTER TABLE tidewire.events ALTER COLUMN topic SET STATISTICS 100"),
    ("42501", "ALTER VIEW tidewire.my_events SET (security_barrier = false)"),
    ("42501", "ALTER VIEW tidewire.my_events OWNER TO CURRENT_USER"),
    ("42501", "ALTER FUNCTION tidewire.current_tenant() SECURITY INVOKER"),
    ("42501", "DROP VIEW tidewire.my_events"),
    ("42501", "DROP SCHEMA tidewire CASCADE"),
    ("42501", "DROP TRIGGER events_record_append ON tidewire.events"),
    ("42501", "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION tidewire.refuse_change()"),
    ("42501", "CREATE CAST (text AS tidewire.priority) WITH INOUT"),
    ("42501", "ALTER TYPE tidewire.priority ADD VALUE 'x'"),
    ("42501", "REASSIGN OWNED BY postgres TO CURRENT_USER"),
    ("42501", "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC"),
    // Roles and the server.
    ("42501", "GRANT SELECT ON tidewire.events TO CURRENT_USER"),
    ("42501", "GRANT tidewire_loader TO CURRENT_USER"),
    ("42501", "GRANT tidewire_analyst TO tidewire_monitor"),
    ("42501", "ALTER ROLE CURRENT_USER SUPERUSER"),
    ("42501", "ALTER ROLE CURRENT_USER BYPASSRLS"),
    ("42501", "ALTER ROLE CURRENT_USER CONNECTION LIMIT -1"),
    ("42501", "CREATE ROLE x"),
    ("42501", "ALTER SYSTEM SET log_statement = 'all'"),
    ("42501", "SET temp_file_limit = -1"),
    ("42501", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'"),
    ("42501", "SELECT pg_reload_conf()"),
    ("42501", "SELECT pg_stat_reset()"),
    ("42501", "CHECKPOINT"),
    // TimescaleDB.
    ("42501", "SELECT drop_chunks('tidewire.events', older_than => now())"),
    ("42501", "SELECT set_chunk_time_interval('tidewire.events', interval '1 hour')"),
    ("42501", "SELECT add_dimension('tidewire.events', by_hash('tenant', 4))"),
    ("42501", "SELECT attach_tablespace('pg_default', 'tidewire.events')"),
    ("42501", "SELECT _timescaledb_functions.stop_background_workers()"),
    ("42501", "SELECT timescaledb_pre_restore()"),
    ("42501", "CALL merge_chunks(ARRAY['tidewire.events'::regclass])"),
    ("42501", "CREATE RULE r AS ON SELECT TO tidewire.my_events DO INSTEAD SELECT 1"),
    // TimescaleDB's licence has no jobs here; where it has, a job runs as its owner.
    ("0A000", "SELECT add_job('tidewire.retain', '1 hour')"),
];

/// Only through append, only for its own tenant, only what a tenant writes.
const APPENDING: &[(&str, &str)] = &[
    (
        "TW403",
        "SELECT tidewire.append('a.b', '1', tenant => 'tenant-other')",
    ),
    ("TW403", "SELECT tidewire.append('a.b', '1', tenant => '')"),
    (
        "TW403",
        "SELECT tidewire.append('a.b', '1', tenant => 'mine ')",
    ),
    (
        "TW403",
        "SET tidewire.tenant = 'tenant-other'; SELECT tidewire.append('a.b', '1', tenant => 'tenant-other')",
    ),
    ("TW403", "SELECT tidewire.append('tidewire', '1')"),
    (
        "TW403",
        "SELECT tidewire.append('tidewire.audit.read', '1')",
    ),
    (
        "TW403",
        "SELECT tidewire.append('tidewire.chunk', '1', tenant => 'mine')",
    ),
    ("23514", "SELECT tidewire.append('Tidewire.audit', '1')"),
    ("23514", "SELECT tidewire.append(' tidewire.audit', '1')"),
    (
        "TW403",
        "CREATE FUNCTION pg_temp.is_reserved(text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION pg_temp.writing_tenant(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
        SET search_path = pg_temp, pg_catalog; SELECT tidewire.append('tidewire.x', '1')",
    ),
];

async fn changes_nothing(tenants: &Tenants, session: &Session, attempts: &[(&str, &str)]) {
    let before = tenants.digest().await;
    try_all(session, attempts).await;
    assert_eq!(tenants.digest().await, before);
    let theirs =
        "SELECT count(*) FROM tidewire.tenant_roles WHERE tenant = 'tenant-other' OR is_admin";
    let count: i64 = tenants.owner.query_one(theirs, &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

#[tokio::test]
async fn a_role_that_reads_changes_nothing() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    changes_nothing(&tenants, &reader, CHANGING).await;
    changes_nothing(
        &tenants,
        &reader,
        &[("42501", "SELECT tidewire.append('a.b', '1')")],
    )
    .await;
}

#[tokio::test]
async fn a_role_that_writes_changes_nothing_but_its_own_tenant() {
    let tenants = Tenants::new().await;
    let writer = tenants.login("writer", true).await;
    changes_nothing(&tenants, &writer, CHANGING).await;
    changes_nothing(&tenants, &writer, APPENDING).await;
    // What is left: its own, with its name as the source, or the one it says.
    for append in [
        "append('a.b', '1', id => 'x1')",
        "append('a.b', '1', id => 'x2', source => 'billing', tenant => 'mine')",
    ] {
        assert_eq!(
            writer.run(&format!("SELECT tidewire.{append}")).await.state,
            "ok"
        );
    }
    let query =
        "SELECT tenant || ' ' || source FROM tidewire.events WHERE topic = 'a.b' ORDER BY seq";
    let rows = tenants.owner.query(query, &[]).await.unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        stored,
        [
            format!("mine {}", tenants.name("writer")),
            "mine billing".to_owned()
        ]
    );
}

/// A chunk is a table of its own, with privileges of its own.
#[tokio::test]
async fn nor_do_they_reach_a_chunk() {
    let tenants = Tenants::new().await;
    let chunks = tenants
        .owner
        .query("SELECT show_chunks('tidewire.events')::text", &[])
        .await
        .unwrap();
    assert!(chunks.len() > 3);
    let sessions = [
        tenants.login("reader", false).await,
        tenants.login("writer", true).await,
    ];
    for row in &chunks {
        let chunk: &str = row.get(0);
        let name = chunk.trim_start_matches("_timescaledb_internal.");
        let statements = [
            format!("SELECT * FROM {chunk}"),
            format!("COPY {chunk} TO STDOUT"),
            format!(
                "INSERT INTO {chunk} (recorded_at, tenant, id, topic) VALUES (now(), 'mine', 'x', 'a')"
            ),
            format!("UPDATE {chunk} SET tenant = 'mine'"),
            format!("DELETE FROM {chunk}"),
            format!("TRUNCATE {chunk}"),
            format!("DROP TABLE {chunk}"),
            format!("SELECT _timescaledb_functions.drop_chunk('{chunk}')"),
            format!("ALTER TABLE {chunk} NO INHERIT tidewire.events"),
            format!("CREATE STATISTICS pg_temp.s (mcv) ON topic, subject FROM {chunk}"),
        ];
        for session in &sessions {
            for statement in &statements {
                let outcome = session.attempt(statement).await;
                assert!(
                    !outcome.leaks() && outcome.state != "ok",
                    "{statement}: {} {}",
                    outcome.state,
                    outcome.said
                );
            }
            let own = session
                .value(&format!(
                    "SELECT count(*) FROM pg_stats WHERE tablename = '{name}'"
                ))
                .await;
            assert_eq!(own, "0");
        }
    }
}
