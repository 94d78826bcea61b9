//! Transactions that hold ids and subjects: whoever shares them waits, everybody else does not notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{self, Api, Server, TestDb};

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

/// A rule of the operator's own, which the server does not know.
async fn refuse(db: &TestDb, check: &str) -> tokio_postgres::Client {
    let client = db.connect().await;
    let statement = format!("ALTER TABLE tidewire.events ADD CONSTRAINT own_rule CHECK ({check})");
    client.batch_execute(&statement).await.unwrap();
    client
}

/// The answers to an NDJSON upload, line by line.
async fn upload(api: &Api, events: &[Value]) -> Vec<Value> {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let request = api
        .request(reqwest::Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .body(lines.join("\n"));
    let answer = request.send().await.unwrap().text().await.unwrap();
    let answers = answer
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    answers.collect()
}

/// Until a writer of the server waits for another transaction.
async fn until_one_waits(db: &TestDb) {
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
    until_one_waits(&db).await;
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

#[tokio::test]
async fn whoever_has_waited_too_long_for_an_id_is_told_so() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let _holder = hold(&db, &["a"]).await;
    let held = json!({"id": "a", "topic": "held.id", "source": "postgres"});
    let (status, problem) = server.api.try_append(&held).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["type"], "/problems/idempotency-in-progress");
    assert!(problem["retry_after"].is_u64(), "{problem}");
    server.stop().await;
}

/// What came shortly before the database did is not given up together with what had waited for it all the time.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_its_own_fifteen_seconds() {
    let db = TestDb::new().await;
    // Nobody is refused before its time is over: the breaker is not what this is about.
    let server = Server::start_with(&db.url, &["--breaker-failures", "1000"]).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let admin = support::db::admin().await;
    let name = db.url.rsplit('/').next().unwrap();
    let name = name.split('?').next().unwrap();
    let connections = |allowed: bool| {
        let statement = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {allowed}");
        let admin = &admin;
        async move { admin.batch_execute(&statement).await.unwrap() }
    };
    connections(false).await;
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    admin.execute(terminate, &[&name]).await.unwrap();
    let mut requests = JoinSet::new();
    let mut append = |id: &'static str| {
        let (api, event) = (server.api.clone(), json!({"id": id, "topic": "a"}));
        requests.spawn(async move { (id, api.try_append(&event).await) });
    };
    // A batch for each lane; the others wait behind them.
    append("one");
    append("two");
    while server.app.appender.waiting() != (0, 0) {
        tokio::task::yield_now().await;
    }
    // The lanes give up a second before its time is over, and take it with the last.
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    seconds.tick().await;
    append("early");
    for _ in 0..11 {
        seconds.tick().await;
    }
    append("late");
    for _ in 0..3 {
        let (id, (status, body)) = requests.join_next().await.unwrap().unwrap();
        assert_ne!(id, "late", "{status} {body}");
        assert_eq!(status, 503, "{id}: {body}");
    }
    connections(true).await;
    let (_, (status, body)) = requests.join_next().await.unwrap().unwrap();
    assert_eq!(status, 201, "it had waited for four seconds: {body}");
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
    let client = refuse(&db, "topic <> 'not.here'").await;
    let server = Server::start(&db).await;
    let events: Vec<_> = (0..1_000)
        .map(|n| json!({"id": format!("e-{n}"), "topic": if n == 700 { "not.here" } else { "here" }}))
        .collect();
    let lines = upload(&server.api, &events).await;
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

/// The lines of an upload that another transaction holds up wait for it; the others are stored meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_line_waits_alone() {
    let db = TestDb::new().await;
    refuse(&db, "topic <> 'not.here'").await;
    let server = Server::start(&db).await;
    let holder = hold(&db, &["held"]).await;
    let api = server.api.clone();
    let mut uploaded = JoinSet::new();
    uploaded.spawn(async move {
        let held = json!({"id": "held", "topic": "held.id", "source": "postgres"});
        let free = json!({"id": "free", "topic": "here"});
        upload(&api, &[json!({"topic": "not.here"}), held, free]).await
    });
    until_one_waits(&db).await;
    while db.log().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(db.log().await[0].1, "free");
    assert!(uploaded.try_join_next().is_none(), "it waits");
    holder.batch_execute("ROLLBACK").await.unwrap();
    let lines = uploaded.join_all().await.concat();
    assert_eq!(lines[0]["error"]["status"], 422, "{lines:?}");
    for (line, id) in [(1, "held"), (2, "free")] {
        assert_eq!(lines[line]["id"], id, "{lines:?}");
        assert_eq!(lines[line]["duplicate"], false, "{lines:?}");
    }
    server.stop().await;
}

/// Of one request or of many: a refused event and a held id are the affair of whoever sent them.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_id_beside_a_refused_event_costs_their_neighbours_nothing() {
    let db = TestDb::new().await;
    refuse(&db, "topic <> 'not.here'").await;
    let server = Server::start(&db).await;
    let held: Vec<usize> = [60].into_iter().chain(150..190).collect();
    let ids: Vec<String> = held.iter().map(ToString::to_string).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let holder = hold(&db, &ids).await;
    let event = |n: usize| match n {
        10 | 110 => json!({"id": n.to_string(), "topic": "not.here"}),
        n if held.contains(&n) => {
            json!({"id": n.to_string(), "topic": "held.id", "source": "postgres"})
        }
        _ => json!({"id": n.to_string(), "topic": "here"}),
    };
    let api = server.api.clone();
    let lines: Vec<_> = (0..100).map(event).collect();
    let mut uploaded = JoinSet::new();
    uploaded.spawn(async move { upload(&api, &lines).await });
    let mut posted = JoinSet::new();
    for n in 100..200 {
        let (api, event) = (server.api.clone(), event(n));
        posted.spawn(async move { (n, api.try_append(&event).await) });
    }
    until_one_waits(&db).await;
    while posted.len() > 40 {
        let (n, (status, body)) = posted.join_next().await.unwrap().unwrap();
        assert_eq!(status, if n == 110 { 422 } else { 201 }, "{n}: {body}");
        assert!(!held.contains(&n), "its id is held");
    }
    holder.batch_execute("COMMIT").await.unwrap();
    for (n, (status, body)) in posted.join_all().await {
        assert!(held.contains(&n), "{n}");
        assert_eq!(status, 201, "{body}");
    }
    for (n, line) in uploaded.join_all().await.concat().iter().enumerate() {
        match n {
            10 => assert_eq!(line["error"]["status"], 422, "{line}"),
            60 => assert_eq!(line["duplicate"], true, "{line}"),
            _ => assert_eq!(line["id"], n.to_string(), "{line}"),
        }
    }
    assert_eq!(db.log().await.len(), 198);
    server.stop().await;
}

/// Each refusal of a slow rule is waited for by whoever earned it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_nothing_but_refused_events_holds_up_nobody() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let slow = "CREATE FUNCTION refused() RETURNS boolean LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep(0.02); RETURN false; END $$";
    client.batch_execute(slow).await.unwrap();
    refuse(
        &db,
        "CASE WHEN topic = 'not.here' THEN refused() ELSE true END",
    )
    .await;
    let server = Server::start(&db).await;
    let refused: Vec<_> = (0..100).map(|_| json!({"topic": "not.here"})).collect();
    let mut uploads = JoinSet::new();
    for _ in 0..2 {
        let (api, refused) = (server.api.clone(), refused.clone());
        uploads.spawn(async move { upload(&api, &refused).await });
    }
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while uploads.len() == 2 {
        let one = Instant::now();
        server.api.append(&json!({"topic": "free"})).await;
        slowest = slowest.max(one.elapsed());
        if let Some(answers) = uploads.try_join_next() {
            assert!(answers.unwrap().iter().all(|a| a["error"]["status"] == 422));
        }
    }
    let (took, slowest) = (began.elapsed(), slowest);
    assert!(took > Duration::from_secs(2), "{took:?}: nothing was shown");
    assert!(slowest * 3 < took, "{slowest:?} of {took:?}");
    uploads.join_all().await;
    server.stop().await;
}
