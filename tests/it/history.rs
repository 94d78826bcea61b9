//! The randomised history: everything that writes, everything that reads, all at once, judged by the table.
//!
//! A run can be replayed with `TIDEWIRE_TEST_SEED` and made longer with `TIDEWIRE_TEST_SECONDS`. The seed fixes what
//! each writer and reader chooses to do, not how their steps fall between each other.

pub mod audience;
pub mod readers;
pub mod verdict;
pub mod writers;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::audience::audience;
use self::readers::Reader;
use self::verdict::Verdict;
use self::writers::{Ledger, Rest, Sql};
use crate::support::{Api, Server, TestDb};

/// A tail that has forgotten the floors: it reads whatever lies above its last place.
const SEQ_GREATER_THAN_LAST: &str = "
    CREATE OR REPLACE FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        newest := pg_sequence_last_value('tidewire.events_seq'::regclass);
        watermark := newest;
    END
    $$";

/// How long readers may need to reach the end once nobody writes any more.
const CATCH_UP: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reader_gets_every_committed_event_once_and_in_order() {
    let verdict = history(setting("TIDEWIRE_TEST_SECONDS", 15), None).await;
    println!("{verdict}");
    assert_eq!(verdict.faults(), Vec::<String>::new(), "{verdict}");
    // Else the history would not have been one.
    for (what, count) in [
        ("events", verdict.committed),
        ("rollbacks", verdict.ledger.rollbacks),
        ("savepoints", verdict.ledger.savepoints),
        ("deadlocks", verdict.ledger.deadlocks),
        ("kills", verdict.ledger.kills),
        ("duplicates", verdict.ledger.duplicates),
    ] {
        assert!(count > 0, "no {what}: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_history_catches_a_tail_that_reads_seq_greater_than_last() {
    let verdict = history(5, Some(SEQ_GREATER_THAN_LAST)).await;
    println!("{verdict}");
    assert!(verdict.missed() > 0, "{verdict}");
}

/// Runs a history of `seconds` on a database of its own, after `sabotage`.
async fn history(seconds: u64, sabotage: Option<&str>) -> Verdict {
    let seed = setting("TIDEWIRE_TEST_SEED", rand::random());
    println!("TIDEWIRE_TEST_SEED={seed}");
    let db = TestDb::new().await;
    // The second one has the smallest window: its readers often fall back on the table.
    let servers = [
        Server::start(&db).await,
        Server::start_with(&db.url, &["--window-events", "2000"]).await,
    ];
    if let Some(sabotage) = sabotage {
        db.connect().await.batch_execute(sabotage).await.unwrap();
    }
    let apis: [Api; 2] = [servers[0].api.clone(), servers[1].api.clone()];
    let mut reading = JoinSet::new();
    for (number, (transport, filter)) in (1_u64..).zip(audience()) {
        let reader = Reader::new(
            transport,
            filter,
            &apis,
            &db.url,
            seed.rotate_left(32) ^ number,
        );
        reading.spawn(reader.run());
    }

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut ledger = Ledger::default();
    let mut writing = JoinSet::new();
    for number in 0..8 {
        let rest = Rest::new(number, &apis, &db.url, seed ^ number);
        writing.spawn(rest.run(until));
    }
    for number in 8..14 {
        let sql = Sql::new(number, &db.url, seed ^ number).await;
        writing.spawn(sql.run(until));
    }
    writing.spawn(writers::quarrel(db.url.clone(), until));
    writing.spawn(writers::kill_backends(db.connect().await, seed, until));
    while let Some(one) = writing.join_next().await {
        ledger.merge(one.unwrap());
    }

    let records = tokio::time::timeout(CATCH_UP, async {
        let mut records = Vec::new();
        let mut writer = writers::EndMarkers::new(db.connect().await);
        while !reading.is_empty() {
            tokio::select! {
                Some(record) = reading.join_next() => records.push(record.unwrap()),
                written = writer.write() => written.unwrap(),
            }
        }
        records
    })
    .await
    .expect("every reader reaches the end");
    let verdict = Verdict::of(&db.connect().await, records, ledger).await;
    for server in servers {
        server.stop().await;
    }
    verdict
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by the environment what to repeat"
)]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
