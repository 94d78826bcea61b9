//! A server that goes: whom it lets go when, who is not let in, and what readers miss of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::{Sse, Ws};
use crate::support::{Api, Process, Server, TestDb, eventually};

/// What a reader of two servers has seen: where it was told to go, it goes on at the other one.
struct Seen {
    ids: Vec<String>,
    /// From a close to the next server's answer, its hint included.
    longest: Duration,
}

/// Reads until it has seen `last`, on whichever server there is.
async fn follow(apis: [Api; 2], first: usize, last: String) -> Seen {
    let (mut at, mut cursor) = (first, "earliest".to_owned());
    let mut seen = Seen {
        ids: Vec::new(),
        longest: Duration::ZERO,
    };
    let mut left = None::<Instant>;
    loop {
        let Ok(mut ws) = apis[at].try_ws().await else {
            at = 1 - at;
            tokio::task::yield_now().await;
            continue;
        };
        ws.try_send(json!({"type": "subscribe", "id": "s", "topics": ["*"], "after": cursor}))
            .await;
        let mut hint = Duration::ZERO;
        while let Ok(frame) = ws.frame_or_close().await {
            if let Some(left) = left.take_if(|_| frame["type"] == "subscribed") {
                seen.longest = seen.longest.max(left.elapsed());
            }
            if let Some(events) = frame["events"].as_array() {
                let ids = events.iter().map(|event| event["id"].as_str().unwrap());
                seen.ids.extend(ids.map(str::to_owned));
                frame["cursor"].as_str().unwrap().clone_into(&mut cursor);
            }
            if seen.ids.last() == Some(&last) {
                return seen;
            }
            if frame["code"] == "restarting" {
                hint = Duration::from_millis(frame["retry_after_ms"].as_u64().unwrap());
            }
        }
        left.get_or_insert_with(Instant::now);
        tokio::time::timeout(hint, std::future::pending::<()>())
            .await
            .unwrap_err();
        at = 1 - at;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_two_servers_loses_nothing_and_nobody_waits_long() {
    let db = TestDb::new().await;
    let settings = ["--drain-s", "2"];
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(Process::start(&db.url, &settings).await);
    }
    let apis = [servers[0].api.clone(), servers[1].api.clone()];
    let mut readers = JoinSet::new();
    for n in 0..60 {
        readers.spawn(follow(apis.clone(), n % 2, "last".to_owned()));
    }
    // Whoever is refused by one server asks the other, as behind an address for both; with the same id.
    let (writing, apis_of_writer) = (tokio_util::sync::CancellationToken::new(), apis.clone());
    let stop = writing.clone();
    let writer = async move {
        let (mut at, mut stored) = (0, Vec::new());
        while !stop.is_cancelled() {
            let event = json!({"topic": "a.b", "id": format!("e-{}", stored.len())});
            let request = apis_of_writer[at].request(Method::POST, "/v1/events");
            match request.json(&event).send().await {
                Ok(answer) if answer.status() == 201 => {
                    stored.push(event["id"].as_str().unwrap().to_owned());
                }
                _ => at = 1 - at,
            }
        }
        stored
    };
    let restarts = async {
        for server in &mut servers {
            let address = server.address();
            let began = Instant::now();
            server.terminate().await;
            assert!(began.elapsed() < Duration::from_secs(12), "{began:?}");
            *server = Process::start_at(&address, &db.url, &settings).await;
        }
        writing.cancel();
    };
    let (stored, ()) = tokio::join!(writer, restarts);
    assert!(stored.len() > 100, "{}", stored.len());
    apis[0].append(&json!({"topic": "a.b", "id": "last"})).await;
    let all: Vec<String> = stored.iter().cloned().chain(["last".to_owned()]).collect();
    let mut longest = Duration::ZERO;
    while let Some(seen) = readers.join_next().await {
        let seen = seen.unwrap();
        assert_eq!(seen.ids, all, "each event once, in order");
        longest = longest.max(seen.longest);
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert!(longest > Duration::ZERO, "everybody has moved");
}

/// A reader whose moment comes while it has something to read waits for a timer, which a thread that is busy with it never serves.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_behind_when_they_are_to_leave_hold_up_nobody() {
    let db = TestDb::new().await;
    let mut server = Process::start_single(&db.url, &["--drain-s", "2"]).await;
    let mut readers = JoinSet::new();
    for _ in 0..60 {
        let mut ws = server.api.ws().await;
        ws.subscribe("s", &["*"], "latest").await;
        readers.spawn(async move { ws.close_code().await });
    }
    let (writing, writer) = (
        tokio_util::sync::CancellationToken::new(),
        db.connect().await,
    );
    let stop = writing.clone();
    let mut at_work = JoinSet::new();
    at_work.spawn(async move {
        let many = "INSERT INTO tidewire.events (tenant, topic) SELECT 'dev', 'a' FROM generate_series(1, 50)";
        while !stop.is_cancelled() {
            writer.batch_execute(many).await.unwrap();
        }
    });
    let stopping = tokio::time::timeout(Duration::from_secs(30), server.terminate());
    stopping.await.expect("it stops");
    writing.cancel();
    at_work.join_all().await;
    for code in readers.join_all().await {
        assert_eq!(code, 1012);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_leave_one_after_the_other_and_are_served_until_then() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--drain-s", "4"]).await;
    let mut sockets = Vec::new();
    for _ in 0..40 {
        let mut ws = server.api.ws().await;
        ws.send(json!({"type": "subscribe", "id": "s", "topics": ["*"]}))
            .await;
        ws.until("live").await;
        sockets.push(ws);
    }
    let began = Instant::now();
    let (app, api) = (server.app.clone(), server.api.clone());
    let stopping = server.stop();
    let watching = async move {
        while !app.drain.has_begun() {
            tokio::task::yield_now().await;
        }
        // From somewhere else: the server takes in nobody.
        assert!(api.try_ws().await.is_err());
        let other = db.connect().await;
        let append = "SELECT tidewire.append('a', id => 'meanwhile')";
        other.batch_execute(append).await.unwrap();
        let mut leaving = JoinSet::new();
        for mut ws in sockets {
            leaving.spawn(async move {
                let (mut hint, mut has_seen) = (None, false);
                let code = loop {
                    match ws.frame_or_close().await {
                        Ok(frame) => {
                            has_seen |= frame["type"] == "events";
                            hint = frame["retry_after_ms"].as_u64().or(hint);
                        }
                        Err(code) => break code,
                    }
                };
                (began.elapsed(), hint, has_seen, code)
            });
        }
        leaving.join_all().await
    };
    let ((), all) = tokio::join!(stopping, watching);
    let seconds: BTreeSet<u64> = all.iter().map(|(at, ..)| at.as_secs()).collect();
    assert!(seconds.len() >= 3, "spread over the window: {seconds:?}");
    let hints: BTreeSet<Option<u64>> = all.iter().map(|(_, hint, ..)| *hint).collect();
    assert!(hints.len() > 20 && !hints.contains(&None), "{hints:?}");
    let reached = all.iter().filter(|(_, _, has_seen, _)| *has_seen).count();
    assert!(reached > 20, "who has not left yet is served: {reached}");
    assert!(all.iter().all(|(.., code)| *code == 1012));
}

/// The last `retry:` of a stream that ends.
async fn last_retry(mut stream: Sse) -> Duration {
    let mut text = Vec::new();
    while let Some(piece) = stream.response.chunk().await.unwrap() {
        text.extend(piece);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("event: error"), "{text}");
    let mut retries = text.lines().filter_map(|line| line.strip_prefix("retry: "));
    Duration::from_millis(retries.next_back().unwrap().parse().unwrap())
}

/// By the same rule as sockets: from the beginning of the drain nobody is kept waiting for more than five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn streams_get_the_hint_that_sockets_get() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &["--drain-s", "4"]).await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        let mut stream = server.api.sse("after=latest", None).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().event, "live");
        streams.push(stream);
    }
    let mut leaving = JoinSet::new();
    for stream in streams {
        leaving.spawn(last_retry(stream));
    }
    server.stop().await;
    let hints: BTreeSet<Duration> = leaving.join_all().await.into_iter().collect();
    assert!(hints.len() > 15, "each its own: {hints:?}");
    assert!(hints.last() <= Some(&Duration::from_secs(1)), "{hints:?}");
}

/// What is accepted is stored and answered, whatever signal comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_under_way_is_finished() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    server.api.append(&json!({"topic": "warm"})).await;
    let holder = db.connect().await;
    let hold = "BEGIN; SELECT tidewire.append('x', id => 'held', tenant => 'dev')";
    holder.batch_execute(hold).await.unwrap();
    let api = server.api.clone();
    let mut appending = JoinSet::new();
    appending.spawn(async move { api.try_append(&json!({"topic": "a", "id": "held"})).await.0 });
    is_waiting(&db).await;
    let app = server.app.clone();
    let released = async {
        app.tasks.stopping().await;
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    tokio::join!(server.stop(), released);
    let status = appending.join_next().await.unwrap().unwrap();
    assert_eq!(status, 201);
    let rows = "SELECT count(*) FROM tidewire.events WHERE id = 'held'";
    let stored: i64 = db
        .connect()
        .await
        .query_one(rows, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, 1);
}

/// An append over a socket that waits for a transaction of this holder's.
async fn append_that_waits(db: &TestDb, server: &Server) -> (tokio_postgres::Client, Ws) {
    server.api.append(&json!({"topic": "warm"})).await;
    let holder = db.connect().await;
    let hold = "BEGIN; SELECT tidewire.append('x', id => 'held', tenant => 'dev')";
    holder.batch_execute(hold).await.unwrap();
    let mut ws = server.api.ws().await;
    let append = json!({"type": "append", "ref": "r", "events": [{"topic": "a", "id": "held"}]});
    ws.send(append).await;
    is_waiting(db).await;
    (holder, ws)
}

/// Until a lane waits for another transaction.
async fn is_waiting(db: &TestDb) {
    let client = db.connect().await;
    eventually(Duration::from_secs(10), || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                          AND application_name LIKE 'tidewire append%'";
        let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (waiting > 0).then_some(()).ok_or(waiting)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_over_a_socket_is_answered_before_its_close() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (holder, mut ws) = append_that_waits(&db, &server).await;
    let leaving = async {
        // The server has told it to go, and still has its append.
        assert_eq!(ws.until("notice").await["code"], "restarting");
        holder.batch_execute("ROLLBACK").await.unwrap();
        let mut answered = Vec::new();
        loop {
            match ws.frame_or_close().await {
                Ok(frame) => answered.push(frame),
                Err(code) => return (answered, code),
            }
        }
    };
    let ((), (answered, code)) = tokio::join!(server.stop(), leaving);
    assert_eq!(code, 1012);
    let [answer] = answered.as_slice() else {
        panic!("{answered:?}");
    };
    assert_eq!(answer["type"], "appended", "{answer}");
    assert_eq!(answer["ref"], "r", "{answer}");
    assert_eq!(answer["events"][0]["duplicate"], false, "{answer}");
}

/// Nobody is waited for for ever; that an answer is missing is counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_takes_too_long_does_not_keep_its_socket() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let (_holder, mut ws) = append_that_waits(&db, &server).await;
    let app = server.app.clone();
    let began = Instant::now();
    let leaving = async {
        assert_eq!(ws.until("notice").await["code"], "restarting");
        ws.close_code().await
    };
    let ((), code) = tokio::join!(server.stop(), leaving);
    assert_eq!(code, 1012);
    assert!(began.elapsed() < Duration::from_secs(15), "{began:?}");
    let told = app.metrics.text();
    assert!(
        told.lines()
            .any(|line| line == "tidewire_websocket_unanswered_total 1"),
        "{told}"
    );
}
