//! Several writers of the same thing at the same moment, over HTTP and in SQL, and what a server sees of it.

use std::collections::HashSet;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::sql::{append, copy_in, detail, state_of};
use crate::support::{Server, TestDb};

#[tokio::test]
async fn of_concurrent_requests_that_expect_the_same_event_one_wins() {
    let db = TestDb::new().await;
    let (one, two) = (Server::start(&db).await, Server::start(&db).await);
    let mut expect = json!("none");
    for round in 0..20 {
        let body = json!({"topic": "a", "subject": "s", "expect": expect, "data": round});
        let requests = [&one, &two, &one, &two].map(|server| server.api.try_append(&body));
        let answers = join_all(requests).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|(status, _)| *status == StatusCode::CREATED);
        assert_eq!(won.len(), 1, "round {round}");
        expect = won[0].1["events"][0]["cursor"].clone();
        for (status, problem) in lost {
            assert_eq!(status, StatusCode::CONFLICT);
            assert_eq!(problem["type"], "/problems/conflict");
            assert_eq!(problem["current_cursor"], expect);
        }
    }
    assert_eq!(db.log().await.len(), 20);
    one.stop().await;
    two.stop().await;
}

/// Whoever expects nothing is not held up by those who do, and yet never gets a place before them unseen.
#[tokio::test(flavor = "multi_thread")]
async fn no_expectation_is_met_behind_an_event_that_was_written_at_the_same_time() {
    let db = TestDb::new().await;
    let (one, two) = (Server::start(&db).await, Server::start(&db).await);
    let writer = db.connect().await;
    let mut met = 0;
    for round in 0..200 {
        let subject = format!("s{round}");
        let plain = json!({"topic": "plain", "subject": subject});
        let expecting = json!({"topic": "expecting", "subject": subject, "expect": "none"});
        let insert = format!(
            "INSERT INTO tidewire.events (tenant, topic, subject) VALUES ('dev', 'plain', '{subject}')"
        );
        let plain = async {
            match round % 3 {
                0 => drop(one.api.append(&plain).await),
                1 => drop(two.api.append(&plain).await),
                _ => writer.batch_execute(&insert).await.unwrap(),
            }
        };
        let ((), (status, problem)) = tokio::join!(plain, one.api.try_append(&expecting));
        let first = "SELECT topic FROM tidewire.events WHERE subject = $1 ORDER BY seq LIMIT 1";
        let first: String = writer.query_one(first, &[&subject]).await.unwrap().get(0);
        if status == StatusCode::CREATED {
            assert_eq!(first, "expecting", "round {round}");
            met += 1;
        } else {
            assert_eq!(problem["type"], "/problems/conflict", "{problem}");
            assert_eq!(first, "plain", "round {round}");
        }
    }
    assert!(met > 0, "nothing was shown");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn one_id_sent_by_sixteen_clients_to_two_servers_is_stored_once() {
    let db = TestDb::new().await;
    let (one, two) = (Server::start(&db).await, Server::start(&db).await);
    for round in 0..10 {
        let body = json!({"id": format!("r{round}"), "topic": "a", "data": {"n": round}});
        let requests = (0..16).map(|client| {
            let server = if client % 2 == 0 { &one } else { &two };
            server.api.append(&body)
        });
        let answers = join_all(requests).await;
        let cursors: HashSet<&str> = answers
            .iter()
            .map(|answer| answer[0]["cursor"].as_str().unwrap())
            .collect();
        assert_eq!(cursors.len(), 1, "round {round}: {answers:?}");
        let first = answers
            .iter()
            .filter(|answer| answer[0]["duplicate"] == false)
            .count();
        assert_eq!(first, 1, "round {round}: {answers:?}");
    }
    assert_eq!(db.log().await.len(), 10);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn insert_copy_and_merge_stream_to_a_live_reader() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let server = Server::start(&db).await;
    let mut live = server.api.sse("after=latest", None).await.unwrap();
    assert_eq!(live.next().await.unwrap().unwrap().event, "live");
    client
        .batch_execute("INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'i1', 'a'), ('dev', 'i2', 'a')")
        .await
        .unwrap();
    copy_in(
        &client,
        "COPY tidewire.events (tenant, id, topic) FROM STDIN",
        "dev\tc1\ta\ndev\tc2\ta\n",
    )
    .await
    .unwrap();
    client
        .batch_execute(
            "MERGE INTO tidewire.events AS e USING (VALUES ('m1')) AS v (id) ON e.id = v.id AND e.recorded_at > now()
             WHEN NOT MATCHED THEN INSERT (tenant, id, topic) VALUES ('dev', v.id, 'a')",
        )
        .await
        .unwrap();
    let mut ids = Vec::new();
    while ids.len() < 5 {
        let (events, _) = live.events().await.unwrap().unwrap();
        ids.extend(events.iter().map(|e| e["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids, ["i1", "i2", "c1", "c2", "m1"]);
    server.stop().await;
}

#[tokio::test]
async fn of_concurrent_appends_upon_the_same_event_one_wins() {
    let db = TestDb::new().await;
    let clients = join_all((0..4).map(|_| db.connect())).await;
    let mut expect = "none".to_owned();
    for round in 0..20 {
        let arguments = format!("'a', subject => 's', expect => '{expect}'");
        let results = join_all(clients.iter().map(|client| append(client, &arguments))).await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        expect = won.into_iter().next().unwrap().unwrap().get(2);
        for error in lost.into_iter().filter_map(Result::err) {
            assert_eq!(detail(&error), expect);
            assert_eq!(state_of(Err::<(), _>(error)), "TW409");
        }
    }
    assert_eq!(db.log().await.len(), 20);
}

#[tokio::test]
async fn many_inserts_in_one_transaction_take_one_lock() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute(
            "BEGIN;
             DO $$ BEGIN FOR i IN 1..20000 LOOP
                INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', 'n' || i, 'a');
             END LOOP; END $$",
        )
        .await
        .unwrap();
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                AND classid = tidewire.floor_class()::oid",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(db.log().await.len(), 20_000);
}
