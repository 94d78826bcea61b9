//! Transactions that hold ids and subjects: whoever shares them waits, everybody else does not notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Server, TestDb};

/// Transactions that are open and have written these ids, as another program's might.
async fn hold(db: &TestDb, ids: &[&str]) -> tokio_postgres::Client {
    let client = db.connect().await;
    client.batch_execute("BEGIN").await.unwrap();
    for id in ids {
        let statement = format!("SELECT tidewire.append('held.id', id => '{id}', tenant => 'dev')");
        client.batch_execute(&statement).await.unwrap();
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_up_nobody_but_its_own_retries() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let holder = hold(&db, &["a", "b", "c"]).await;
    let mut retries = JoinSet::new();
    for id in ["a", "b", "c"] {
        let api = server.api.clone();
        retries.spawn(async move {
            api.try_append(&json!({"id": id, "topic": "held.id", "source": "postgres"}))
                .await
        });
    }
    // Until the database says that the retries wait: both lanes would be stuck now.
    let watcher = db.connect().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while watcher
        .query_one(waits, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        == 0
    {
        tokio::task::yield_now().await;
    }
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let one = Instant::now();
        server.api.append(&json!({"topic": "free"})).await;
        slowest = slowest.max(one.elapsed());
    }
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
    assert!(retries.try_join_next().is_none(), "they wait");
    holder.batch_execute("COMMIT").await.unwrap();
    for (status, body) in retries.join_all().await {
        assert_eq!(status, 201, "{body}");
        assert_eq!(body["events"][0]["duplicate"], true, "{body}");
    }
    server.stop().await;
}

/// One of two copies of a request stores the event, the other finds it: the expectation was that of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_an_expectation_does_not_conflict_with_itself() {
    let db = TestDb::new().await;
    let servers = [Server::start(&db).await, Server::start(&db).await];
    for number in 0..100 {
        let event = json!({"id": format!("e-{number}"), "topic": "a", "subject": format!("s-{number}"), "expect": "none"});
        let (first, second) = tokio::join!(
            servers[0].api.try_append(&event),
            servers[1].api.try_append(&event)
        );
        let duplicates = [&first, &second].map(|(status, body): &(_, Value)| {
            assert_eq!(*status, 201, "{body}");
            body["events"][0]["duplicate"] == true
        });
        assert_ne!(duplicates[0], duplicates[1], "one stored it, one found it");
    }
    for server in servers {
        server.stop().await;
    }
}

/// A line that only the database refuses costs a few statements, not one for each of its neighbours.
#[tokio::test]
async fn one_refused_event_costs_its_neighbours_little() {
    let db = TestDb::new().await;
    // A rule of the operator's own, which the server does not know.
    let client = db.connect().await;
    client
        .batch_execute(
            "ALTER TABLE tidewire.events ADD CONSTRAINT own_rule CHECK (topic <> 'not.here')",
        )
        .await
        .unwrap();
    let server = Server::start(&db).await;
    let events: Vec<_> = (0..1_000)
        .map(|n| json!({"id": format!("e-{n}"), "topic": if n == 700 { "not.here" } else { "here" }}))
        .collect();
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let answer = server
        .api
        .request(reqwest::Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let lines: Vec<Value> = answer
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1_000);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["line"], number + 1);
        if number == 700 {
            assert!(
                line["error"]["detail"]
                    .as_str()
                    .unwrap()
                    .contains("own_rule"),
                "{line}"
            );
        } else {
            assert_eq!(line["id"], format!("e-{number}"), "{line}");
        }
    }
    let stored: Vec<String> = db.log().await.into_iter().map(|(_, id)| id).collect();
    let wanted: Vec<String> = (0..1_000)
        .filter(|n| *n != 700)
        .map(|n| format!("e-{n}"))
        .collect();
    assert_eq!(stored, wanted, "in the order of the lines");
    let commits: i64 = client
        .query_one(
            "SELECT count(DISTINCT xmin::text) FROM tidewire.events",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(commits <= 12, "{commits} transactions for 999 events");
    server.stop().await;
}
