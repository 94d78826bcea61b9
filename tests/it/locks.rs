//! Locks that others hold for long, and silent lines: no backend is left behind, no stuck connection used again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::json;
use tidewire::event::{Filter, Position, Tenant};
use tidewire::log::read::Query;
use tidewire::log::{History, Identity, ReadError, Unavailable};
use tidewire::pg::Connector;
use tidewire::tasks::Tasks;

use crate::support::{Proxy, Server, TestDb, eventually};

/// A transaction that keeps everybody from the log.
async fn locked(db: &TestDb) -> tokio_postgres::Client {
    let open = db.connect().await;
    open.batch_execute("BEGIN; LOCK TABLE tidewire.events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_leaves_no_backends_behind() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let open = locked(&db).await;
    let watcher = db.connect().await;
    let mut seen = HashSet::new();
    let look = "SELECT pid FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'tidewire tail'";
    let began = Instant::now();
    // Until it has connected for the fourth time.
    while seen.len() < 4 {
        assert!(began.elapsed() < Duration::from_mins(1), "{seen:?}");
        let tails = watcher.query(look, &[]).await.unwrap();
        assert!(tails.len() <= 2, "{} connections of one tail", tails.len());
        seen.extend(tails.iter().map(|row| row.get::<_, i32>(0)));
    }
    open.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

/// Reads that are given up may not go on in the database, nor their connections be the next reader's.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_given_up_has_ended_in_the_database() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let open = locked(&db).await;
    let read = || server.api.try_get("/v1/events?since=2020-01-01T00:00:00Z");
    let answers = tokio::join!(read(), read(), read(), read());
    for (status, problem) in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(status, 503, "{problem}");
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                      AND application_name = 'tidewire history' AND state = 'active'";
    let watcher = db.connect().await;
    eventually(Duration::from_millis(500), || async {
        match watcher.query_one(waiting, &[]).await.unwrap().get(0) {
            0_i64 => Ok(()),
            busy => Err(busy),
        }
    })
    .await;
    open.batch_execute("ROLLBACK").await.unwrap();
    let (status, _) = read().await;
    assert_eq!(status, 200);
    server.stop().await;
}

/// Whoever took a silent one next would wait for the same silence; one that has answered is as good as before.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_connection_that_has_answered_is_given_back_to_the_pool() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let connector = Connector::parse(&url, &Tasks::new()).unwrap();
    let identity = Identity::load(&db.connect().await).await.unwrap();
    let history = History::new(&connector, &identity).unwrap();
    let query = Query {
        tenant: Tenant::parse("dev").unwrap(),
        filter: Filter::everything(),
        after: Position::START,
        up_to: Position {
            seq: 10,
            at_ms: 4_102_444_800_000,
        },
        limit: 1,
    };
    let since = async || {
        let end = Position::START;
        let found = history
            .position_before(&query.tenant, DateTime::UNIX_EPOCH, end)
            .await;
        found.map(drop)
    };
    let count = async || history.count(&query).await.map(drop);
    let is_silent = |read| matches!(read, Err(ReadError::Unavailable(Unavailable::Silent)));
    for is_since in [true, false] {
        since().await.unwrap();
        assert_eq!(history.pool().status().size, 1);
        proxy.hold();
        let read = if is_since {
            since().await
        } else {
            count().await
        };
        assert!(is_silent(read));
        assert_eq!(history.pool().status().size, 0);
        proxy.restore();
    }
    since().await.unwrap();
    let _open = locked(&db).await;
    assert!(is_silent(since().await), "the database has ended it");
    assert_eq!(history.pool().status().size, 1);
}
