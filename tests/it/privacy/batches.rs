//! Batches of retention: no larger than a statement's time allows, and one that fails holds up nobody else's.

use std::future::poll_fn;
use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::retention::store;
use crate::support::token::WITH_TOKENS;
use crate::support::{Server, TestDb, eventually};

const DAY: i32 = 86_400;

/// A call as a server's: how many it has emptied, and whether it is complete; nothing if it failed.
async fn call(client: &Client) -> (i64, Option<bool>) {
    let call = "SELECT removed, is_complete FROM tidewire.apply_retention(5000, clock_timestamp())";
    let row = client.query_one(call, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Tenants that have an event of their own left.
async fn kept(client: &Client) -> Vec<String> {
    let kept = "SELECT DISTINCT tenant::text FROM tidewire.events WHERE erased_at IS NULL AND NOT starts_with(topic, 'tidewire.') ORDER BY 1";
    let rows = client.query(kept, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// 120 events of 480 kB, every third of them kept by another rule.
#[tokio::test]
async fn a_batch_is_bounded_by_bytes_and_misses_nothing() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for statement in [
        "SET session_replication_role = replica",
        // Stored as it is, so that a column's size is that of the text.
        "ALTER TABLE tidewire.events ALTER COLUMN data SET STORAGE EXTERNAL",
        "INSERT INTO tidewire.events (recorded_at, tenant, id, topic, data)
         SELECT clock_timestamp() - interval '3 days', 'acme', n::text, CASE WHEN n % 3 = 0 THEN 'kept' ELSE 'due' END,
                to_jsonb(repeat('x', 480000))
           FROM generate_series(1, 120) AS n",
        "SET session_replication_role = origin",
        "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 2), ('acme', 'kept', 10)",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let first = call(&client).await;
    assert_eq!(
        first,
        (70, Some(false)),
        "the last of these goes beyond 32 MB"
    );
    let place = "SELECT r.applied_seq = (SELECT max(e.seq) FROM tidewire.events AS e WHERE e.erased_at IS NOT NULL)
                        AND r.through_at IS NULL
                   FROM tidewire.retention_rules AS r WHERE r.pattern = '*'";
    let is_right: bool = client.query_one(place, &[]).await.unwrap().get(0);
    assert!(is_right, "what was cut was not gone through");
    assert_eq!(call(&client).await, (10, Some(true)));
    let left = "SELECT count(*) FROM tidewire.events WHERE erased_at IS NULL AND topic = ANY ('{due,kept}') AND tenant = 'acme'";
    let left: i64 = client.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, 40, "those of the other rule");
}

/// Two tenants with something due, of whom the first has a batch that fails like this.
async fn failing(how: &str) -> (TestDb, Client) {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for tenant in ["a", "z"] {
        store(&client, tenant, "x", 3 * DAY, tenant).await;
    }
    let fails = format!(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {how}; RETURN NEW; END';
         CREATE TRIGGER fails BEFORE INSERT ON tidewire.erased_tenants FOR EACH ROW WHEN (NEW.tenant = 'a')
            EXECUTE FUNCTION public.fail();
         INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('a', '*', 2), ('z', '*', 2)"
    );
    client.batch_execute(&fails).await.unwrap();
    (db, client)
}

#[tokio::test]
async fn a_tenant_whose_batch_fails_goes_to_the_end_of_the_line() {
    for how in [
        "RAISE EXCEPTION ''broken''",
        // As when a statement has taken too long.
        "PERFORM pg_sleep(60)",
    ] {
        let (_db, client) = failing(how).await;
        client
            .batch_execute("SET statement_timeout = '2s'")
            .await
            .unwrap();
        assert_eq!(call(&client).await, (0, None), "{how}");
        assert_eq!(kept(&client).await, ["a", "z"], "{how}");
        // The other's is done, and stays so when the first fails again.
        assert_eq!(call(&client).await, (1, None), "{how}");
        assert_eq!(kept(&client).await, ["a"], "{how}");
        client
            .batch_execute("DROP TRIGGER fails ON tidewire.erased_tenants")
            .await
            .unwrap();
        assert_eq!(call(&client).await, (1, Some(true)), "{how}");
    }
}

#[tokio::test]
async fn a_server_goes_on_with_others_where_a_batch_fails() {
    let (db, client) = failing("RAISE EXCEPTION ''broken''").await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    eventually(Duration::from_secs(10), || async {
        let left = kept(&client).await;
        if left == ["a"] { Ok(()) } else { Err(left) }
    })
    .await;
    server.stop().await;
}

/// What the database warns of in this statement.
pub async fn warnings(db: &TestDb, statement: &str) -> Vec<String> {
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let mut warned = Vec::new();
    let listening = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message.unwrap() {
                warned.push(notice.message().to_owned());
            }
        }
    };
    let asking = async move {
        client
            .batch_execute("SET client_min_messages = 'warning'")
            .await
            .unwrap();
        client.batch_execute(statement).await.unwrap();
    };
    tokio::join!(listening, asking);
    warned
}

/// A message of a class that quotes rows stays out of the database's log; where it came from is said.
#[tokio::test]
async fn what_a_failure_quotes_of_an_event_is_not_said() {
    let checked = "INSERT INTO public.narrow VALUES (1)";
    for (how, said, is_quoted) in [
        (
            "RAISE EXCEPTION ''s3ntinel'' USING ERRCODE = ''22P02''",
            "SQLSTATE 22P02",
            false,
        ),
        (
            "RAISE EXCEPTION ''s3ntinel'' USING ERRCODE = ''53200''",
            "SQLSTATE 53200: s3ntinel",
            true,
        ),
        (
            checked,
            "SQLSTATE 23514, constraint is_small, table narrow",
            false,
        ),
    ] {
        let (db, client) = failing(how).await;
        let narrow = "CREATE TABLE public.narrow (n integer CONSTRAINT is_small CHECK (n < 1))";
        client.batch_execute(narrow).await.unwrap();
        let warned = warnings(&db, "SELECT tidewire.apply_retention()").await;
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(
            warned[0].ends_with(&format!("has failed: {said}")),
            "{warned:?}"
        );
        assert_eq!(warned[0].contains("s3ntinel"), is_quoted, "{warned:?}");
    }
}
