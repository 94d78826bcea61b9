//! Who may do what in SQL, role by role.

use crate::support::sql::{DENIED, copy_in, state_of, with_one_event};

#[tokio::test]
async fn a_writer_may_only_append_and_only_for_its_own_tenant() {
    let (db, client) = with_one_event().await;
    let role = db.login("tidewire_writer").await;
    let writer = db.connect_as(&role, &role).await;
    let append = "SELECT tidewire.append('a.b', '1')";
    assert_eq!(
        state_of(writer.batch_execute(append).await),
        "TW403",
        "it belongs to no tenant yet"
    );
    client
        .execute(
            "INSERT INTO tidewire.tenant_roles VALUES ($1, 'acme')",
            &[&role],
        )
        .await
        .unwrap();
    writer.batch_execute(append).await.unwrap();
    writer
        .batch_execute("SELECT tidewire.append('a.b', '1', tenant => 'acme')")
        .await
        .unwrap();
    for statement in [
        "SELECT tidewire.append('a.b', '1', tenant => 'dev')",
        "SELECT tidewire.append('a.b', '1', tenant => '')",
    ] {
        assert_eq!(
            state_of(writer.batch_execute(statement).await),
            "TW403",
            "{statement}"
        );
    }
    for statement in [
        "SELECT FROM tidewire.events",
        "SELECT FROM tidewire.my_events",
        "SELECT FROM tidewire.idempotency_keys",
        "SELECT FROM tidewire.tenant_roles",
        "UPDATE tidewire.tenant_roles SET tenant = 'dev'",
        "INSERT INTO tidewire.events (tenant, topic) VALUES ('acme', 'a')",
        "SELECT tidewire.retain('1 day')",
        "SELECT tidewire.begin_epoch()",
        "SELECT tidewire.expire_keys()",
        "SELECT tidewire.writing_tenant('dev')",
        "SELECT tidewire.append_many('{dev}', '{x}', '{a}', '{x}', '{x}', '{low}', '{now}', '{x}', '{}', '{x}', '{1}', '{x}', '{x}', '{1}', '{0}')",
    ] {
        assert_eq!(
            state_of(writer.batch_execute(statement).await),
            DENIED,
            "{statement}"
        );
    }
    let tenants = client
        .query(
            "SELECT tenant, source FROM tidewire.events WHERE NOT starts_with(topic, 'tidewire.') ORDER BY seq",
            &[],
        )
        .await
        .unwrap();
    let stored: Vec<(&str, &str)> = tenants.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(
        stored,
        [
            ("dev", "postgres"),
            ("acme", role.as_str()),
            ("acme", role.as_str())
        ]
    );
}

#[tokio::test]
async fn a_loader_may_insert_and_copy_but_not_say_where_or_when() {
    let (db, _client) = with_one_event().await;
    let role = db.login("tidewire_loader").await;
    let loader = db.connect_as(&role, &role).await;
    loader
        .batch_execute("INSERT INTO tidewire.events (tenant, id, topic, data) VALUES ('acme', 'i', 'a.b', '{}')")
        .await
        .unwrap();
    copy_in(
        &loader,
        "COPY tidewire.events (tenant, id, topic) FROM STDIN",
        "acme\tc1\ta.b\nother\tc2\ta.b\n",
    )
    .await
    .unwrap();
    for statement in [
        "INSERT INTO tidewire.events (seq, tenant, id, topic) VALUES (99, 'acme', 'x', 'a')",
        "INSERT INTO tidewire.events (recorded_at, tenant, id, topic) VALUES (now(), 'acme', 'x', 'a')",
        "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('acme', 'x', 'a') RETURNING seq",
        "SELECT FROM tidewire.events",
        "DELETE FROM tidewire.events",
        "TRUNCATE tidewire.events",
        "SELECT tidewire.append('a', '1', tenant => 'acme')",
    ] {
        assert_eq!(
            state_of(loader.batch_execute(statement).await),
            DENIED,
            "{statement}"
        );
    }
    let copied = copy_in(
        &loader,
        "COPY tidewire.events (seq, tenant, id, topic) FROM STDIN",
        "99\tacme\tx\ta\n",
    );
    assert_eq!(state_of(copied.await), DENIED);
    let ids: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["one", "i", "c1", "c2"]);
}

#[tokio::test]
async fn an_analyst_sees_its_own_tenant_and_its_conditions_see_no_other() {
    let (db, client) = with_one_event().await;
    let role = db.login("tidewire_analyst").await;
    let analyst = db.connect_as(&role, &role).await;
    let count = async || -> i64 {
        let row = analyst
            .query_one("SELECT count(*) FROM tidewire.my_events", &[])
            .await;
        row.unwrap().get(0)
    };
    assert_eq!(count().await, 0, "no tenant, no events");
    client
        .batch_execute(&format!(
            "INSERT INTO tidewire.tenant_roles VALUES ('{role}', 'acme');
             SELECT tidewire.append('mine.one', '1', tenant => 'acme');
             SELECT tidewire.append('theirs.secret', '2', tenant => 'other');
             CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
             BEGIN
                IF $1 = 'theirs.secret' THEN RAISE EXCEPTION 'seen: %', $1; END IF;
                RETURN true;
             END $$"
        ))
        .await
        .unwrap();
    assert_eq!(count().await, 1);
    for statement in [
        "SELECT FROM tidewire.my_events WHERE public.leak(topic)",
        "SELECT FROM tidewire.my_events WHERE 1 / (CASE topic WHEN 'theirs.secret' THEN 0 ELSE 1 END) = 1",
        "SELECT FROM tidewire.my_events WHERE (data::text)::int = 1 AND public.leak(topic) ORDER BY seq",
    ] {
        let rows = analyst.query(statement, &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "{statement}");
    }
    let row = analyst
        .query_one(
            "SELECT tidewire.cursor_seq(tidewire.cursor(seq, recorded_at)) = seq FROM tidewire.my_events",
            &[],
        )
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    for statement in [
        "SELECT FROM tidewire.events",
        "SELECT tidewire.append('a', '1')",
        "SELECT FROM tidewire.writers",
        "INSERT INTO tidewire.my_events (topic) VALUES ('a')",
        "DELETE FROM tidewire.my_events",
    ] {
        let state = state_of(analyst.batch_execute(statement).await);
        assert_eq!(state, DENIED, "{statement}");
    }
}

#[tokio::test]
async fn a_monitor_sees_the_state_of_the_log_and_no_event() {
    let (db, client) = with_one_event().await;
    let role = db.login("tidewire_monitor").await;
    let monitor = db.connect_as(&role, &role).await;
    client
        .batch_execute("BEGIN; SELECT tidewire.append('a.b', '2')")
        .await
        .unwrap();
    let writers = monitor
        .query("SELECT pid, floor FROM tidewire.writers", &[])
        .await
        .unwrap();
    assert_eq!(writers.len(), 1);
    assert_eq!(writers[0].get::<_, i64>(1), 1);
    let row = monitor
        .query_one("SELECT watermark, newest FROM tidewire.watermark()", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2));
    for statement in [
        "SELECT FROM tidewire.log",
        "SELECT FROM tidewire.epochs",
        "SELECT tidewire.floor_class()",
    ] {
        monitor.batch_execute(statement).await.unwrap();
    }
    for statement in [
        "SELECT FROM tidewire.events",
        "SELECT FROM tidewire.my_events",
        "SELECT FROM tidewire.tenant_roles",
        "SELECT tidewire.append('a', '1')",
        "UPDATE tidewire.log SET retained_seq = 9",
    ] {
        let state = state_of(monitor.batch_execute(statement).await);
        assert_eq!(state, DENIED, "{statement}");
    }
}

#[tokio::test]
async fn nobody_else_may_anything() {
    let (db, client) = with_one_event().await;
    let role = db.login("pg_read_all_stats").await;
    let rows = client
        .query(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p
              WHERE p.pronamespace = 'tidewire'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')
             UNION ALL
             SELECT c.oid::regclass::text FROM pg_class AS c
              WHERE c.relnamespace = 'tidewire'::regnamespace AND c.relkind IN ('r', 'v', 'p')
                AND (has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                     OR has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
             UNION ALL
             SELECT c.oid::regclass::text FROM pg_class AS c
              WHERE c.relnamespace = 'tidewire'::regnamespace AND c.relkind = 'S'
                AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege($1, c.oid, 'USAGE, SELECT, UPDATE') END",
            &[&role],
        )
        .await
        .unwrap();
    let open: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "{open:?}");
    let nobody = db.connect_as(&role, &role).await;
    let state = state_of(nobody.batch_execute("SELECT FROM tidewire.log").await);
    assert_eq!(state, DENIED);
}

/// Grants on the log are copied to its chunks, statement triggers are not: such an event would have no floor, no id that
/// is remembered, and no reader.
#[tokio::test]
async fn a_loader_may_not_write_into_a_chunk() {
    let (db, client) = with_one_event().await;
    let role = db.login("tidewire_loader").await;
    let loader = db.connect_as(&role, &role).await;
    // As every migrate does: TimescaleDB passes the grant on to the chunks that are there.
    client
        .batch_execute(
            "GRANT INSERT (tenant, id, topic) ON tidewire.events TO tidewire_loader;
             SELECT tidewire.prepare_chunks()",
        )
        .await
        .unwrap();
    let chunks = client
        .query("SELECT show_chunks('tidewire.events')::text", &[])
        .await
        .unwrap();
    assert!(!chunks.is_empty());
    for chunk in chunks {
        let chunk: String = chunk.get(0);
        let insert = format!("INSERT INTO {chunk} (tenant, id, topic) VALUES ('dev', 'past', 'a')");
        assert_eq!(
            state_of(loader.batch_execute(&insert).await),
            DENIED,
            "{chunk}"
        );
    }
    let insert = "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'fine', 'a')";
    loader.batch_execute(insert).await.unwrap();
    assert_eq!(db.log().await.len(), 2);
}
