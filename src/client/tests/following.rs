//! Whatever happens to the line: what is read is the log, in order, once.

use super::super::follow::WATCHDOG;
use super::super::{Client, Error, Following, Selection, Start, Step};
use super::fixture::{Fault, Server, cursor};

fn follow(server: &Server, start: Start) -> Following {
    let client = Client::new(&server.url, None).unwrap();
    client.follow(Selection::default(), start)
}

fn id_of(event: &serde_json::value::RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(event.get()).unwrap();
    value["id"].as_str().unwrap().to_owned()
}

/// Reads until `count` events have come; the ids.
async fn read(following: &mut Following, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match following.next().await.unwrap().unwrap() {
            Step::Events { events, cursor } => {
                ids.extend(events.iter().map(|e| id_of(e)));
                assert!(cursor.ends_with(&ids.len().to_string()));
            }
            Step::Moved { .. } | Step::Retrying { .. } => {}
        }
    }
    ids
}

#[tokio::test]
async fn a_cut_at_every_byte_changes_nothing() {
    let whole = Server::start([]).await;
    whole.store(4, "a.b");
    // Two messages and two heartbeats; all at once, since each waits for its backoff.
    let cuts = (0..900)
        .step_by(7)
        .flat_map(|at| [Fault::CutFollow(at), Fault::EndFollow(at)]);
    futures_util::future::join_all(cuts.map(async |fault| {
        let server = Server::start([fault.clone()]).await;
        server.store(4, "a.b");
        let ids = read(&mut follow(&server, Start::Earliest), 4).await;
        assert_eq!(ids, whole.ids(), "{fault:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_stream_is_open_before_anything_is_read_of_it() {
    let server = Server::start([]).await;
    server.store(2, "old");
    let mut following = follow(&server, Start::After(cursor(2)));
    assert!(server.log().reads.is_empty());
    following.open().await.unwrap();
    assert_eq!(
        server.log().reads,
        [cursor(2)],
        "the server has taken it in"
    );
    following.open().await.unwrap();
    server.store(3, "new");
    let mut ids = Vec::new();
    while ids.len() < 3 {
        if let Step::Events { events, .. } = following.next().await.unwrap().unwrap() {
            ids.extend(events.iter().map(|event| id_of(event)));
        }
    }
    assert_eq!(ids, ["new-0", "new-1", "new-2"]);
    assert_eq!(server.log().reads.len(), 1, "once");
}

#[tokio::test]
async fn a_server_that_is_full_when_a_stream_is_opened_is_asked_again() {
    let server = Server::start([Fault::Problem(503, "overloaded", Some(0))]).await;
    server.store(2, "a");
    let mut following = follow(&server, Start::Earliest);
    following.open().await.unwrap();
    assert_eq!(read(&mut following, 2).await.len(), 2);
}

#[tokio::test]
async fn a_cut_before_the_first_event_does_not_move_latest() {
    // The page that resolves it, the stream that breaks, and then both at once.
    let server = Server::start([Fault::Problem(503, "starting", None)]).await;
    server.store(2, "old");
    let mut following = follow(&server, Start::Latest);
    let Some(Step::Moved { cursor: begin }) = following.next().await.unwrap() else {
        panic!("latest must become a cursor first");
    };
    assert_eq!(begin, cursor(2));
    server.log().faults.push_back(Fault::CutFollow(0));
    server.store(3, "new");
    let mut ids = Vec::new();
    while ids.len() < 3 {
        if let Some(Step::Events { events, .. }) = following.next().await.unwrap() {
            ids.extend(events.iter().map(|e| id_of(e)));
        }
    }
    assert_eq!(ids, ["new-0", "new-1", "new-2"]);
}

#[tokio::test]
async fn what_is_final_ends() {
    for (status, code) in [
        (401, "unauthenticated"),
        (403, "forbidden-topic"),
        (409, "cursor-unknown"),
        (410, "cursor-expired"),
    ] {
        let server = Server::start([Fault::Problem(status, code, None)]).await;
        let err = follow(&server, Start::Earliest).next().await.unwrap_err();
        assert!(
            matches!(&err, Error::Refused(p) if p.code() == code),
            "{err}"
        );
        assert_eq!(server.log().reads.len(), 1);
    }
    let expired = "event: error\ndata: {\"type\":\"/problems/cursor-expired\",\"status\":410}\n\n";
    let server = Server::start([Fault::Say(expired)]).await;
    let err = follow(&server, Start::Earliest).next().await.unwrap_err();
    assert!(matches!(err, Error::Refused(p) if p.status == 410));

    let server = Server::start([Fault::NoMore]).await;
    assert!(
        follow(&server, Start::Earliest)
            .next()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn overload_passes() {
    let overloaded = "event: error\ndata: {\"type\":\"/problems/overloaded\",\"status\":503}\n\n";
    let faults = [
        Fault::Problem(503, "overloaded", None),
        Fault::Say(overloaded),
        Fault::Problem(429, "rate", Some(0)),
    ];
    let server = Server::start(faults).await;
    server.store(2, "a");
    assert_eq!(
        read(&mut follow(&server, Start::Earliest), 2).await,
        server.ids()
    );
}

#[tokio::test]
async fn a_silent_line_is_left() {
    let heartbeat = "event: heartbeat\nid: 00000000000000000000000000000000\ndata: {}\n\n";
    let server = Server::start([Fault::Say(heartbeat)]).await;
    server.store(2, "a");
    let mut following = follow(&server, Start::Earliest);
    let step = following.next().await.unwrap();
    assert!(matches!(step, Some(Step::Moved { .. })));
    // Nothing but the watchdog is left to wait for, so paused time runs up to it.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let step = following.next().await.unwrap();
    assert!(start.elapsed() >= WATCHDOG, "{:?}", start.elapsed());
    assert!(matches!(
        step,
        Some(Step::Retrying {
            why: Error::Silent { .. },
            ..
        })
    ));
    tokio::time::resume();
    assert_eq!(read(&mut following, 2).await, server.ids());
}
