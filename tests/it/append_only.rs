//! The log is append-only, and places and times are the log's, even for its owner.

use tokio_postgres::Client;

use crate::support::sql::{DENIED, copy_in, state_of, with_one_event};

/// The chunk that holds the only event of a fresh log.
async fn only_chunk(client: &Client) -> String {
    let row = client
        .query_one(
            "SELECT e.tableoid::regclass::text FROM tidewire.events AS e",
            &[],
        )
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn the_log_is_append_only_even_for_the_superuser() {
    let (db, client) = with_one_event().await;
    let chunk = only_chunk(&client).await;
    for statement in [
        "UPDATE tidewire.events SET topic = 'x'",
        "DELETE FROM tidewire.events",
        "TRUNCATE tidewire.events",
        "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'two', 'a') ON CONFLICT DO NOTHING; DELETE FROM tidewire.events WHERE id = 'two'",
        "MERGE INTO tidewire.events AS e USING (VALUES ('one')) AS v (id) ON e.id = v.id WHEN MATCHED THEN DELETE",
        &format!("UPDATE {chunk} SET topic = 'x'"),
        &format!("DELETE FROM {chunk}"),
    ] {
        assert_eq!(
            state_of(client.batch_execute(statement).await),
            "TW405",
            "{statement}"
        );
    }
    assert_eq!(db.log().await, [(1, "one".to_owned())]);
}

/// PostgreSQL copies row triggers to chunks and statement triggers not, and TRUNCATE has no row triggers. So this one
/// statement, aimed at a chunk by its owner, is not held back. The privilege is the guard: nobody else has it.
#[tokio::test]
async fn only_the_owner_could_truncate_a_chunk_or_write_past_the_log() {
    let (db, client) = with_one_event().await;
    let chunk = only_chunk(&client).await;
    for group in [
        "tidewire_writer",
        "tidewire_loader",
        "tidewire_analyst",
        "tidewire_monitor",
    ] {
        let role = db.login(group).await;
        let other = db.connect_as(&role, &role).await;
        for statement in [
            format!("TRUNCATE {chunk}"),
            format!(
                "INSERT INTO {chunk} (recorded_at, tenant, id, topic) VALUES (now(), 'dev', 'x', 'a')"
            ),
            format!("SELECT FROM {chunk}"),
            "SELECT setval('tidewire.events_seq', 1)".to_owned(),
        ] {
            assert_eq!(
                state_of(other.batch_execute(&statement).await),
                DENIED,
                "{group}: {statement}"
            );
        }
    }
    assert_eq!(db.log().await.len(), 1);
}

#[tokio::test]
async fn places_and_times_that_the_log_did_not_give_are_refused() {
    let (db, client) = with_one_event().await;
    for (column, value) in [
        ("seq", "0"),
        ("seq", "1"),
        ("seq", "1000000"),
        ("seq", "-5"),
        ("recorded_at", "clock_timestamp() - interval '1 hour'"),
        ("recorded_at", "clock_timestamp() + interval '1 hour'"),
        ("recorded_at", "'1999-01-01'"),
    ] {
        let statement = format!(
            "INSERT INTO tidewire.events ({column}, tenant, id, topic) VALUES ({value}, 'dev', 'forged', 'a')"
        );
        assert_eq!(
            state_of(client.batch_execute(&statement).await),
            "TW422",
            "{statement}"
        );
    }
    let copied = copy_in(
        &client,
        "COPY tidewire.events (seq, tenant, id, topic) FROM STDIN",
        "1\tdev\tforged\ta\n",
    );
    assert_eq!(state_of(copied.await), "TW422");
    assert_eq!(db.log().await.len(), 1);
}
