//! Reads of history that are shared.

use std::sync::Arc;
use std::time::Duration;

use tidewire::event::{Filter, Position, Seq, Tenant};
use tidewire::feed::gate::Gate;
use tidewire::log::identity::Identity;
use tidewire::log::{History, Page};
use tidewire::pg::Connector;
use tidewire::tasks::Tasks;

use crate::support::{TestDb, eventually};

/// What a reader waits for with `at_least` is in its page, also when an equal page is being read that ends before it.
#[tokio::test]
async fn who_joins_a_read_that_ends_too_early_reads_again() {
    let db = TestDb::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let append = async |id: &str| {
        let statement = "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', $1, 'a')
                         RETURNING seq, recorded_at";
        let row = client.query_one(statement, &[&id]).await.unwrap();
        Position::new(row.get(0), row.get(1))
    };
    let connector = Connector::parse(&db.url, &Tasks::new()).unwrap();
    let identity = Identity::load(&client).await.unwrap();
    let gate = Gate::new(History::new(&connector, &identity).unwrap());
    let (tenant, filter) = (
        Tenant::parse("dev").unwrap(),
        Arc::new(Filter::everything()),
    );
    let read = |up_to| gate.page(&tenant, &filter, Position::START, up_to, 10);

    let first = append("first").await;
    // What retention has recorded is asked for after the rows were read.
    other
        .batch_execute("BEGIN; LOCK TABLE tidewire.retained_tenants")
        .await
        .unwrap();
    let early = read(first);
    let later = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid
                        FROM pg_database WHERE datname = current_database())";
        eventually(Duration::from_secs(10), async || {
            let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
            (waiting == 1).then_some(()).ok_or(waiting)
        })
        .await;
        let second = append("second").await;
        let mut page = Box::pin(read(second));
        // It has joined before the other one can end.
        assert!(futures_util::poll!(&mut page).is_pending());
        other.batch_execute("ROLLBACK").await.unwrap();
        page.await
    };
    let (early, later) = tokio::join!(early, later);
    let places = |page: Arc<Page>| -> Vec<Seq> {
        let places = page.events.iter().map(|event| event.position.seq);
        places.collect()
    };
    let first = first.seq;
    assert_eq!(places(early.unwrap()), [first]);
    assert_eq!(places(later.unwrap()), [first, first + 1]);
}
