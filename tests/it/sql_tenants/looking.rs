//! Ways to see another tenant's events.

use super::fixture::{Tenants, try_all};

/// Each ends as it says and shows nothing of the other tenant. `ok`: it is allowed and harmless.
pub const LOOKING: &[(&str, &str)] = &[
    // The tables themselves.
    ("42501", "SELECT * FROM tidewire.events"),
    ("42501", "SELECT count(*) FROM tidewire.events"),
    ("42501", "SELECT topic FROM ONLY tidewire.events"),
    ("42501", "SELECT e.* FROM tidewire.my_events AS m JOIN tidewire.events AS e USING (seq)"),
    ("42501", "SELECT * FROM tidewire.idempotency_keys"),
    ("42501", "SELECT * FROM tidewire.tenant_roles"),
    ("42501", "SELECT * FROM tidewire.tenant_role_issues"),
    ("42501", "SELECT * FROM tidewire.epochs"),
    ("42501", "SELECT * FROM tidewire.log"),
    ("42501", "SELECT * FROM tidewire.definitions"),
    ("42501", "SELECT * FROM tidewire.writers"),
    ("42501", "COPY tidewire.events TO STDOUT"),
    ("42501", "COPY (SELECT * FROM tidewire.events) TO STDOUT"),
    ("42501", "EXPLAIN ANALYZE SELECT * FROM tidewire.events"),
    ("42501", "SELECT * FROM tidewire.events FOR UPDATE"),
    ("42501", "BEGIN; LOCK TABLE tidewire.events IN ACCESS SHARE MODE"),
    ("42501", "PREPARE p AS SELECT * FROM tidewire.events; EXECUTE p"),
    ("42501", "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM tidewire.events; COMMIT; FETCH ALL FROM c"),
    ("42501", "SELECT query_to_xml('SELECT * FROM tidewire.events', true, true, '')"),
    ("42501", "SELECT table_to_xml('tidewire.events', true, true, '')"),
    ("ok", "SELECT schema_to_xml('tidewire', true, true, '')"),
    ("42501", "SELECT ts_stat('SELECT to_tsvector(topic) FROM tidewire.events')"),
    ("42501", "DO $$ BEGIN PERFORM count(*) FROM tidewire.events; END $$"),
    // Settings: the tenant does not come from one.
    ("ok", "SET tidewire.tenant = 'tenant-other'; SELECT * FROM tidewire.my_events"),
    ("ok", "SET tidewire.preparing = 'open'; SET tidewire.erasure = 'open'; SELECT * FROM tidewire.my_events"),
    ("ok", "SET tidewire.floor = '0'; SET tidewire.own_slot = '0'; SET tidewire.notify = 'always'; SELECT * FROM tidewire.my_events"),
    ("ok", "SELECT set_config('role', 'none', false); SELECT * FROM tidewire.my_events"),
    ("ok", "SET row_security = off; SELECT * FROM tidewire.my_events"),
    ("ok", "SET search_path = pg_temp, tidewire, public; SELECT * FROM my_events"),
    ("ok", "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT * FROM tidewire.my_events"),
    ("42501", "SET session_replication_role = replica"),
    ("42501", "SET log_min_messages = debug5"),
    ("42501", "SET lo_compat_privileges = on"),
    ("42501", "SET session_preload_libraries = 'auto_explain'"),
    ("42501", "LOAD 'auto_explain'"),
    ("42501", "LOAD '$libdir/../../../../tmp/x'"),
    // Other roles.
    ("42501", "SET ROLE postgres"),
    ("42501", "SET ROLE tidewire_loader"),
    ("42501", "SET ROLE tidewire_monitor"),
    ("42501", "SET ROLE tidewire_analyst"),
    ("42501", "SET ROLE pg_read_all_data"),
    ("42501", "SET SESSION AUTHORIZATION postgres"),
    ("42501", "SELECT set_config('session_authorization', 'postgres', false)"),
    ("42501", "SELECT set_config('role', 'postgres', false)"),
    // A condition that tells what it is given.
    ("ok", "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
        SELECT seq FROM tidewire.my_events WHERE pg_temp.leak(topic) AND pg_temp.leak(subject) AND pg_temp.leak(id)"),
    ("ok", "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
        SELECT * FROM tidewire.my_events AS m JOIN pg_class ON pg_temp.leak(m.data::text) LIMIT 20"),
    ("42501", "CREATE FUNCTION pg_temp.leak(text, text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$"),
    ("ok", "CREATE FUNCTION pg_temp.leak(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
        CREATE OPERATOR pg_temp.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.leak, RESTRICT = eqsel, HASHES);
        EXPLAIN SELECT * FROM tidewire.my_events WHERE topic OPERATOR(pg_temp.===) 'x';
        EXPLAIN SELECT * FROM tidewire.my_events WHERE subject OPERATOR(pg_temp.===) 'x'"),
    ("ok", "CREATE FUNCTION pg_temp.leak(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
        CREATE OPERATOR pg_temp.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.leak, RESTRICT = scalarltsel);
        EXPLAIN SELECT * FROM tidewire.my_events WHERE source OPERATOR(pg_temp.<<<) 'x' OR subject OPERATOR(pg_temp.<<<) 'x'"),
    ("ok", "SELECT seq FROM tidewire.my_events WHERE 1 / (CASE WHEN topic LIKE 's3n%' THEN 0 ELSE 1 END) = 1"),
    ("ok", "SELECT seq FROM tidewire.my_events WHERE CASE WHEN subject ~ '^s3n' THEN (subject || id)::int ELSE 1 END = 1"),
    ("22P02", "SELECT seq FROM tidewire.my_events WHERE topic::int = 1"),
    ("22P02", "SELECT seq FROM tidewire.my_events WHERE (data::text)::int = 1"),
    ("22P02", "SELECT seq FROM tidewire.my_events WHERE (gdpr ->> 'basis')::uuid IS NULL"),
    ("ok", "SELECT seq FROM tidewire.my_events WHERE (SELECT count(*) FROM generate_series(1, length(topic))) > 12 AND topic > 's'"),
    ("ok", "CREATE FUNCTION pg_temp.step(text, text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'seen: %', $2; RETURN $2; END $$;
        CREATE AGGREGATE pg_temp.seen(text) (SFUNC = pg_temp.step, STYPE = text);
        SELECT pg_temp.seen(topic) FROM tidewire.my_events"),
    // Names that stand before those the log's functions use.
    ("ok", "CREATE TEMP TABLE tenant_roles (role name, tenant text, is_admin boolean);
        INSERT INTO tenant_roles VALUES (session_user, 'tenant-other', true);
        SET search_path = pg_temp, tidewire; SELECT * FROM tidewire.my_events; SELECT * FROM tidewire.my_subject('mine-deal-1')"),
    ("ok", "CREATE FUNCTION pg_temp.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT ''tenant-other''';
        CREATE FUNCTION pg_temp.sees_reserved() RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION pg_temp.starts_with(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        SET search_path = pg_temp, pg_catalog, tidewire; SELECT * FROM tidewire.my_events"),
    ("ok", "CREATE FUNCTION pg_temp.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
        CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.equal);
        SET search_path = pg_temp, pg_catalog; SELECT * FROM tidewire.my_events; SELECT * FROM tidewire.my_subject('mine-deal-1')"),
    ("42501", "CREATE TEMP VIEW mine AS SELECT * FROM tidewire.events; SELECT * FROM mine"),
    ("42501", "CREATE FUNCTION pg_temp.theirs() RETURNS SETOF tidewire.events LANGUAGE sql SECURITY DEFINER AS
        'SELECT * FROM tidewire.events'; SELECT * FROM pg_temp.theirs()"),
    ("42501", "CREATE TEMP TABLE mine (LIKE tidewire.events); INSERT INTO mine SELECT * FROM tidewire.events"),
    ("42501", "CREATE TEMP TABLE mine () INHERITS (tidewire.events)"),
    ("42501", "ALTER TABLE tidewire.idempotency_keys ADD FOREIGN KEY (key) REFERENCES tidewire.idempotency_keys"),
    ("42501", "CREATE STATISTICS pg_temp.s (mcv) ON topic, subject FROM tidewire.events"),
    // What the planner and the server know.
    ("ok", "SELECT * FROM pg_stats WHERE schemaname IN ('tidewire', '_timescaledb_internal')"),
    ("ok", "SELECT * FROM pg_stats_ext"),
    ("42501", "SELECT * FROM pg_statistic"),
    ("42501", "SELECT * FROM pg_statistic_ext_data"),
    ("ok", "SELECT * FROM pg_stat_activity"),
    ("ok", "SELECT * FROM pg_locks"),
    ("ok", "SELECT * FROM pg_prepared_xacts"),
    ("ok", "SELECT * FROM pg_stat_user_tables; SELECT * FROM pg_stat_user_functions; SELECT * FROM pg_stat_database"),
    ("ok", "SELECT * FROM pg_indexes; SELECT * FROM pg_constraint; SELECT * FROM pg_description"),
    ("42501", "SELECT * FROM pg_authid"),
    ("42501", "SELECT * FROM pg_hba_file_rules"),
    ("42501", "SELECT * FROM pg_file_settings"),
    ("42501", "SELECT * FROM pg_stat_get_wal_receiver(), pg_ls_waldir()"),
    ("42501", "SELECT * FROM pg_subscription"),
    ("ok", "SELECT * FROM information_schema.tables; SELECT * FROM information_schema.routines; SELECT * FROM pg_proc"),
    // TimescaleDB.
    ("ok", "SELECT * FROM timescaledb_information.chunks; SELECT * FROM timescaledb_information.hypertables"),
    ("ok", "SELECT * FROM timescaledb_information.dimensions; SELECT * FROM timescaledb_information.jobs"),
    ("ok", "SELECT show_chunks('tidewire.events')"),
    ("ok", "SELECT approximate_row_count('tidewire.events')"),
    ("ok", "SELECT hypertable_size('tidewire.events'), pg_relation_size('tidewire.events')"),
    ("ok", "SELECT * FROM chunks_detailed_size('tidewire.events')"),
    ("ok", "SELECT * FROM _timescaledb_catalog.chunk; SELECT * FROM _timescaledb_catalog.dimension_slice"),
    // Files, programs, other servers.
    ("42501", "SELECT pg_read_file('PG_VERSION')"),
    ("42501", "SELECT pg_ls_dir('base')"),
    ("42501", "SELECT * FROM pg_ls_logdir()"),
    ("42501", "COPY tidewire.my_events TO PROGRAM 'cat'"),
    ("42501", "CREATE TEMP TABLE t (line text); COPY t FROM PROGRAM 'id'"),
    ("42501", "CREATE TEMP TABLE t (line text); COPY t FROM '/etc/passwd'"),
    ("42501", "SELECT lo_import('/etc/passwd')"),
    ("42501", "CREATE EXTENSION dblink"),
    ("42501", "CREATE EXTENSION pageinspect"),
    ("42501", "CREATE EXTENSION pgstattuple"),
    ("42501", "SELECT pg_create_logical_replication_slot('s', 'test_decoding')"),
    ("42501", "CREATE PUBLICATION p FOR TABLE tidewire.events"),
    ("42501", "SELECT * FROM pg_walfile_name(pg_switch_wal())"),
    ("42501", "SELECT pg_log_backend_memory_contexts(pg_backend_pid())"),
    ("42501", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE c AS 'libc', 'getpid'"),
    ("42501", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'"),
];

#[tokio::test]
async fn a_role_that_reads_sees_no_other_tenant_whatever_it_asks() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    assert_eq!(
        reader
            .value("SELECT count(*) FROM tidewire.my_events")
            .await,
        "2881"
    );
    try_all(&reader, LOOKING).await;
}

#[tokio::test]
async fn nor_does_a_role_that_writes() {
    let tenants = Tenants::new().await;
    let writer = tenants.login("writer", true).await;
    assert_eq!(
        writer
            .value("SELECT count(*) FROM tidewire.my_events")
            .await,
        "2881"
    );
    try_all(&writer, LOOKING).await;
}
