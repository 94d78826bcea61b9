//! What tests of the SQL side share.

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::{Client, Error, Row};

use super::TestDb;

/// No privilege.
pub const DENIED: &str = "42501";

/// The SQLSTATE of a statement that must have failed.
pub fn state_of<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "it succeeded".to_owned(),
        Err(error) => error
            .code()
            .map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

/// Runs a COPY with these rows.
pub async fn copy_in(client: &Client, statement: &str, rows: &str) -> Result<u64, Error> {
    let sink = client.copy_in::<_, Bytes>(statement).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(rows.as_bytes())).await?;
    sink.finish().await
}

/// A log with one event of the tenant `dev`, `one`.
pub async fn with_one_event() -> (TestDb, Client) {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute("SELECT tidewire.append('a.b', '1', id => 'one')")
        .await
        .unwrap();
    (db, client)
}

/// `tidewire.append()` with these arguments.
pub async fn append(client: &Client, arguments: &str) -> Result<Row, Error> {
    client
        .query_one(
            &format!("SELECT event_id, seq, cursor, duplicate FROM tidewire.append({arguments})"),
            &[],
        )
        .await
}

/// What of DETAIL an error has.
pub fn detail(error: &Error) -> String {
    error
        .as_db_error()
        .and_then(|db| db.detail())
        .unwrap_or_default()
        .to_owned()
}

/// Stores `now`, and `old-1` to `old-3` as of three, two and one days ago, each in a chunk of its own.
pub async fn store_old_events(client: &Client) {
    let store = "SELECT public.set_chunk_time_interval('tidewire.events', interval '1 hour');
             SELECT tidewire.append('a', id => 'now');
             SET session_replication_role = replica;
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
                SELECT clock_timestamp() - make_interval(days => 4 - i), 'dev', 'old-' || i, 'a' FROM generate_series(1, 3) AS i;
             SET session_replication_role = origin";
    client.batch_execute(store).await.unwrap();
}

/// All rows of this tenant in the log's tables, as text.
pub async fn rows_of(client: &Client, tenant: &str) -> Vec<String> {
    let tables = "SELECT c.oid::regclass::text FROM pg_class AS c
                   JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
                  WHERE c.relnamespace = 'tidewire'::regnamespace AND c.relkind = 'r' ORDER BY 1";
    let mut all = Vec::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: &str = table.get(0);
        let query = format!(
            "SELECT (to_jsonb(t) - 'last_used_at')::text FROM {table} AS t WHERE t.tenant = $1 ORDER BY 1"
        );
        for row in client.query(&query, &[&tenant]).await.unwrap() {
            all.push(format!("{table}: {}", row.get::<_, String>(0)));
        }
    }
    all
}
