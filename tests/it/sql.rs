//! `tidewire.append()` and cursors in SQL: the same rules as over HTTP.

use serde_json::json;

use crate::support::sql::{append, detail, state_of, with_one_event};
use crate::support::{Server, TestDb};

#[tokio::test]
async fn the_same_id_is_stored_once_and_other_content_is_refused() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let first = append(&client, "'a.b', '{\"x\": 1, \"y\": 2}', id => 'k'")
        .await
        .unwrap();
    let again = append(&client, "'a.b', '{\"y\": 2, \"x\": 1.0}', id => 'k'")
        .await
        .unwrap();
    assert!(!first.get::<_, bool>(3) && again.get::<_, bool>(3));
    assert_eq!(first.get::<_, &str>(2), again.get::<_, &str>(2));
    for other in [
        "'a.c', '{\"x\": 1, \"y\": 2}', id => 'k'",
        "'a.b', '{\"x\": 1}', id => 'k'",
        "'a.b', '{\"x\": 1, \"y\": 2}', id => 'k', subject => 's'",
        "'a.b', '{\"x\": 1, \"y\": 2}', id => 'k', occurred_at => now()",
        "'a.b', id => 'k', bytes => 'x', content_type => 'text/plain'",
    ] {
        assert_eq!(state_of(append(&client, other).await), "TW422", "{other}");
    }
    // Another tenant's ids are its own.
    let theirs = append(&client, "'a.c', id => 'k', tenant => 'other'")
        .await
        .unwrap();
    assert!(!theirs.get::<_, bool>(3));
    assert_eq!(db.log().await.len(), 2);
}

#[tokio::test]
async fn the_id_of_a_plain_insert_counts_as_well() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute("INSERT INTO tidewire.events (tenant, id, topic, source) VALUES ('dev', 'k', 'a', 'postgres')")
        .await
        .unwrap();
    let again = append(&client, "'a', id => 'k'").await.unwrap();
    assert!(again.get::<_, bool>(3));
    for statement in [
        "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'k', 'a')",
        "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'n', 'a'), ('dev', 'n', 'a')",
    ] {
        let error = client.batch_execute(statement).await.unwrap_err();
        let db_error = error.as_db_error().unwrap();
        assert_eq!(
            (db_error.code().code(), db_error.constraint()),
            ("23505", Some("event_id_is_unique"))
        );
    }
    assert_eq!(db.log().await.len(), 1);
}

#[tokio::test]
async fn expect_stores_only_upon_the_event_that_it_names() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let one = append(&client, "'a', subject => 's', expect => 'none'")
        .await
        .unwrap();
    let cursor: &str = one.get(2);
    let error = append(&client, "'a', subject => 's', expect => 'none'")
        .await
        .unwrap_err();
    assert_eq!(detail(&error), cursor, "the detail is the newest cursor");
    assert_eq!(state_of(Err::<(), _>(error)), "TW409");
    let upon = format!("'a', subject => 's', expect => '{cursor}'");
    let two = append(&client, &upon).await.unwrap();
    let error = append(&client, &upon).await.unwrap_err();
    assert_eq!(detail(&error), two.get::<_, &str>(2));
    let elsewhere = format!("'a', subject => 'other', expect => '{cursor}'");
    let error = append(&client, &elsewhere).await.unwrap_err();
    assert_eq!(
        (detail(&error), state_of(Err::<(), _>(error))),
        ("none".to_owned(), "TW409".to_owned())
    );
    assert_eq!(
        state_of(append(&client, "'a', expect => 'none'").await),
        "TW422"
    );
    assert_eq!(
        state_of(append(&client, "'a', subject => 's', expect => 'x'").await),
        "TW400"
    );
    assert_eq!(db.log().await.len(), 2);
}

#[tokio::test]
async fn an_append_is_part_of_the_callers_transaction() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute(
            "BEGIN; SELECT tidewire.append('a', id => 'gone'); ROLLBACK;
             BEGIN;
             SELECT tidewire.append('a', id => 'kept-1');
             SAVEPOINT s; SELECT tidewire.append('a', id => 'undone'); ROLLBACK TO s;
             SAVEPOINT t; SELECT tidewire.append('a', id => 'kept-2'); RELEASE t;
             COMMIT;
             SELECT tidewire.append('a', id => 'gone');
             BEGIN;
             SAVEPOINT s; SELECT tidewire.append('a', id => 'undone-2'); ROLLBACK TO s;
             SELECT tidewire.append('a', id => 'kept-3');
             COMMIT",
        )
        .await
        .unwrap();
    let log = db.log().await;
    let ids: Vec<&str> = log.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(ids, ["kept-1", "kept-2", "gone", "kept-3"]);
    let open = client
        .query("SELECT FROM tidewire.writers", &[])
        .await
        .unwrap();
    assert!(open.is_empty());
}

#[tokio::test]
async fn a_savepoint_gives_back_its_floor_and_keeps_the_others() {
    let db = TestDb::new().await;
    let (client, monitor) = (db.connect().await, db.connect().await);
    let watermark = async || -> i64 {
        let row = monitor
            .query_one("SELECT watermark FROM tidewire.watermark()", &[])
            .await;
        row.unwrap().get(0)
    };
    client
        .batch_execute("SELECT tidewire.append('a')")
        .await
        .unwrap();
    client
        .batch_execute("BEGIN; SAVEPOINT s; SELECT tidewire.append('a')")
        .await
        .unwrap();
    assert_eq!(watermark().await, 1);
    client.batch_execute("ROLLBACK TO s").await.unwrap();
    assert_eq!(watermark().await, 2, "the floor went with the savepoint");
    client
        .batch_execute(
            "SELECT tidewire.append('a'); SAVEPOINT t; SELECT tidewire.append('a'); ROLLBACK TO t",
        )
        .await
        .unwrap();
    assert_eq!(watermark().await, 2, "the outer floor stays");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(watermark().await, 4);
}

#[tokio::test]
async fn a_cursor_in_sql_is_the_servers_cursor() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start(&db).await;
    let answer = server
        .api
        .append(&json!([{"topic": "a.b"}, {"topic": "a.c"}]))
        .await;
    let mine = append(&client, "'a.d'").await.unwrap();
    let page = server
        .api
        .page("earliest", &format!("&at_least={}", mine.get::<_, &str>(2)))
        .await;
    let rows = client
        .query(
            "SELECT tidewire.cursor(seq, recorded_at), seq FROM tidewire.events ORDER BY seq",
            &[],
        )
        .await
        .unwrap();
    let ours: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let theirs: Vec<&str> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["cursor"].as_str().unwrap())
        .collect();
    assert_eq!(ours, theirs);
    assert_eq!(ours[0], answer[0]["cursor"]);
    assert_eq!(ours[2], mine.get::<_, &str>(2));
    assert!(ours.is_sorted(), "bytewise order is log order");
    for row in &rows {
        let seq: i64 = client
            .query_one("SELECT tidewire.cursor_seq($1)", &[&row.get::<_, &str>(0)])
            .await
            .unwrap()
            .get(0);
        assert_eq!(seq, row.get::<_, i64>(1));
    }
    server.stop().await;
}

#[tokio::test]
async fn forged_cursors_are_refused_in_sql() {
    let (db, other) = (TestDb::new().await, TestDb::new().await);
    let (client, foreign) = (db.connect().await, other.connect().await);
    foreign
        .batch_execute("UPDATE tidewire.log SET log_id = gen_random_uuid()")
        .await
        .unwrap();
    let cursor: String = append(&client, "'a'").await.unwrap().get(2);
    let theirs: String = append(&foreign, "'a'").await.unwrap().get(2);
    for (text, state) in [
        ("", "TW400"),
        ("earliest", "TW400"),
        (&cursor.to_uppercase(), "TW400"),
        (&cursor[1..], "TW400"),
        (&format!("{cursor}0"), "TW400"),
        (&cursor.replace('0', "1"), "TW409"),
        (&"v".repeat(32), "TW409"),
        (&theirs, "TW409"),
    ] {
        let read = client
            .query_one("SELECT tidewire.cursor_seq($1)", &[&text])
            .await;
        assert_eq!(state_of(read), state, "{text}");
    }
    // Ours, but of a place that is still to come.
    let ahead = "SELECT tidewire.cursor_seq(tidewire.cursor(99, now()))";
    assert_eq!(state_of(client.batch_execute(ahead).await), "TW409");
    // The next life began after it, the one after that before it.
    client
        .batch_execute(
            "INSERT INTO tidewire.epochs (epoch, after_seq, system_identifier, timeline, database_oid, events_oid, reason)
             VALUES (2, 1, 1, 1, 1, 1, 'test'), (3, 0, 1, 1, 1, 1, 'test')",
        )
        .await
        .unwrap();
    let cut = client
        .query_one("SELECT tidewire.cursor_seq($1)", &[&cursor])
        .await;
    assert_eq!(state_of(cut), "TW409");
}

/// A number of a few bytes may be printed as a hundred thousand: what readers are sent is what is bounded.
#[tokio::test]
async fn what_is_stored_is_bounded_by_what_is_printed() {
    let (db, client) = with_one_event().await;
    for statement in [
        "INSERT INTO tidewire.events (tenant, topic, data) SELECT 'dev', 'a', jsonb_agg(1e131071::numeric) FROM generate_series(1, 40)",
        "SELECT tidewire.append('a', (SELECT jsonb_agg(1e131071::numeric) FROM generate_series(1, 40)), tenant => 'dev')",
    ] {
        assert_eq!(state_of(client.batch_execute(statement).await), "23514");
    }
    let consent = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(1_000));
    client
        .execute(
            "INSERT INTO tidewire.events (tenant, topic, gdpr) VALUES ('dev', 'a', $1::text::jsonb)",
            &[&consent],
        )
        .await
        .unwrap();
    assert_eq!(db.log().await.len(), 2);
}

/// Of a floor only the low 32 bits are kept: one from further below would come out above what is still open.
#[tokio::test]
async fn a_floor_from_far_below_hides_nothing() {
    let (db, client) = with_one_event().await;
    client
        .batch_execute(
            "SELECT setval('tidewire.events_seq', 5000000000);
             SELECT set_config('tidewire.floor', (5000000000 - 4294967296 + 10)::text, false);
             BEGIN;
             SELECT tidewire.append('a', tenant => 'dev', id => 'open')",
        )
        .await
        .unwrap();
    let other = db.connect().await;
    for _ in 0..20 {
        append(&other, "'a', tenant => 'dev'").await.unwrap();
    }
    let row = other
        .query_one("SELECT watermark, newest FROM tidewire.watermark()", &[])
        .await
        .unwrap();
    let (watermark, newest): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(newest, 5_000_000_021);
    assert!(watermark <= 5_000_000_000, "{watermark}");
    client.batch_execute("COMMIT").await.unwrap();
}
