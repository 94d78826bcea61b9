//! Tenants whose names hash to the number of a server's slot: the locks of their rules are others than the server's.

use std::time::Duration;

use tokio_postgres::Client;

use super::retention::store;
use super::rules::set;
use crate::support::credentials::admin;
use crate::support::token::WITH_TOKENS;
use crate::support::{Server, TestDb, eventually};

const DAY: i32 = 86_400;

/// By the number that `hashtext` makes of each: the first of "t" and a number in base 36, counted from 0, for which it does.
const NAMES: [&str; 8] = [
    "t1awg11", "t119ss8y", "t2yv8y2j", "t4mr8llr", "t1vrcz4j", "tctrls1", "t2rt9xwf", "tu6m6rm",
];

/// The slot that the server of this database owns, as soon as it does.
async fn slot(client: &Client) -> usize {
    let held = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = 1953064033 AND objsubid = 2 AND granted
                   AND objid < 8 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let slot = eventually(Duration::from_secs(10), || async {
        let row = client.query_opt(held, &[]).await.unwrap();
        row.map(|row| row.get::<_, i64>(0)).ok_or("none")
    });
    usize::try_from(slot.await).unwrap()
}

/// Topics of the tenant's events that say something.
async fn kept(client: &Client, tenant: &str) -> Vec<String> {
    let kept = "SELECT topic FROM tidewire.events WHERE tenant = $1 AND erased_at IS NULL AND NOT starts_with(topic, 'tidewire.')
                 ORDER BY topic";
    let rows = client.query(kept, &[&tenant]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_tenant_named_like_a_servers_slot_has_its_rules() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for (slot, name) in NAMES.iter().enumerate() {
        let hash: i32 = client
            .query_one("SELECT hashtext($1)", &[name])
            .await
            .unwrap()
            .get(0);
        assert_eq!(usize::try_from(hash), Ok(slot), "{name}");
    }
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let tenant = NAMES[slot(&client).await];
    for topic in ["a", "b", "c"] {
        store(&client, tenant, topic, 3 * DAY, topic).await;
    }
    // As far as the lock of a change goes, in SQL and at the server.
    for sql in [
        "SET statement_timeout = '5s'".to_owned(),
        format!(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('{tenant}', 'a', 2)"
        ),
    ] {
        client.batch_execute(&sql).await.unwrap();
    }
    set(&admin(&server, tenant), "b", 2).await;
    eventually(Duration::from_secs(10), || async {
        // The server may be doing it just now.
        client
            .batch_execute("SELECT tidewire.apply_retention()")
            .await
            .unwrap();
        let left = kept(&client, tenant).await;
        if left == ["c"] { Ok(()) } else { Err(left) }
    })
    .await;
    server.stop().await;
}
