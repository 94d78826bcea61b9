//! Whatever happens to the line: what is stored is what was sent, once, in order.

use std::time::Duration;

use futures_util::stream;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::append::{BATCH_BYTES_MAX, BATCH_LINES_MAX};
use super::super::{Answer, Client, Error, Line, Problem, Sending};
use super::fixture::{Fault, Server};

fn lines(texts: impl IntoIterator<Item = String>) -> Vec<Line> {
    let numbered = (1..).zip(texts);
    numbered
        .map(|(number, text)| Line {
            number,
            end: 0,
            event: Ok(text),
        })
        .collect()
}

fn events(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!(r#"{{"topic":"a.b","data":{n}}}"#))
        .collect()
}

async fn append(server: &Server, lines: Vec<Line>) -> Result<Vec<Answer>, Error> {
    let client = Client::new(&server.url, None)?;
    let mut appender = client.append(stream::iter(lines));
    let mut all = Vec::new();
    while let Some(sending) = appender.next().await? {
        if let Sending::Answered(answers) = sending {
            all.extend(answers);
        }
    }
    assert_eq!(appender.held(), 0);
    Ok(all)
}

fn stored_data(server: &Server) -> Vec<usize> {
    let log = server.log();
    let data = log
        .events
        .iter()
        .map(|e| usize::try_from(e["data"].as_u64().unwrap()).unwrap());
    data.collect()
}

async fn check(faults: Vec<Fault>, count: usize) {
    let server = Server::start(faults).await;
    let answers = append(&server, lines(events(count))).await.unwrap();
    let numbers: Vec<u64> = answers.iter().map(|a| a.line.number).collect();
    assert_eq!(numbers, (1..).take(count).collect::<Vec<u64>>());
    assert_eq!(stored_data(&server), (0..count).collect::<Vec<_>>());
    for (answer, id) in answers.iter().zip(server.ids()) {
        assert_eq!(answer.result.as_ref().unwrap().id, id);
    }
}

#[tokio::test]
async fn a_cut_at_every_point_stores_all_once() {
    let mut faults = Vec::new();
    for stored in 0..=4 {
        faults.extend((0..=stored).map(|answered| Fault::CutAppend { stored, answered }));
        faults.push(Fault::ShortAppend { answered: stored });
    }
    // All at once, since each waits for its backoff.
    futures_util::future::join_all(faults.into_iter().map(|fault| check(vec![fault], 4))).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_run_of_faults_stores_all_once(
        faults in proptest::collection::vec((0_usize..8, 0_usize..8, 0_u8..3), 0..4),
        count in 0_usize..8,
    ) {
        let faults = faults.into_iter().map(|(a, b, kind)| match kind {
            0 => Fault::CutAppend { stored: a.max(b), answered: a.min(b) },
            1 => Fault::ShortAppend { answered: a },
            _ => Fault::Problem(503, "overloaded", None),
        }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(faults, count));
    }
}

#[tokio::test]
async fn the_servers_wish_to_wait_is_met() {
    for status in [429, 503] {
        let server = Server::start([Fault::Problem(status, "slow-down", Some(1))]).await;
        let start = Instant::now();
        append(&server, lines(events(2))).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert_eq!(stored_data(&server), [0, 1]);
    }
}

#[tokio::test]
async fn a_line_that_is_turned_away_comes_back() {
    let server = Server::start([Fault::TurnAway(1)]).await;
    let answers = append(&server, lines(events(3))).await.unwrap();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|a| a.result.is_ok()));
    assert_eq!(stored_data(&server), [0, 2, 1]);
}

#[tokio::test]
async fn refused_lines_are_answered_in_their_place() {
    let server = Server::start([]).await;
    let mut sent = lines(events(6));
    sent[1].event = Ok(r#"{"topic":"not a topic"}"#.to_owned());
    sent[2].event = Err(Problem::malformed("never sent"));
    sent[4].event = Ok("{".to_owned());
    sent[5].event = Err(Problem::malformed("never sent"));
    let answers = append(&server, sent).await.unwrap();
    let refused: Vec<u64> = answers
        .iter()
        .filter(|a| a.result.is_err())
        .map(|a| a.line.number)
        .collect();
    assert_eq!(refused, [2, 3, 5, 6]);
    assert_eq!(answers.len(), 6);
    assert!(answers.is_sorted_by_key(|a| a.line.number));
    assert_eq!(stored_data(&server), [0, 3]);
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let server = Server::start([]).await;
    let long = "x".repeat(BATCH_BYTES_MAX / 4);
    let large = (0..9).map(|n| format!(r#"{{"topic":"a","data":{n},"region":"{long}"}}"#));
    append(&server, lines(large)).await.unwrap();
    append(&server, lines(events(BATCH_LINES_MAX * 2 + 1)))
        .await
        .unwrap();
    let seen = server.log();
    assert!(seen.appends.iter().all(|(lines, bytes)| {
        *lines <= BATCH_LINES_MAX && *bytes <= BATCH_BYTES_MAX + long.len() + 200
    }));
    assert!(
        seen.appends
            .iter()
            .any(|(lines, _)| *lines == BATCH_LINES_MAX)
    );
}

#[tokio::test]
async fn what_will_not_pass_ends_at_once() {
    let server = Server::start([Fault::Problem(401, "unauthenticated", None)]).await;
    let err = append(&server, lines(events(1))).await.unwrap_err();
    assert!(matches!(err, Error::Refused(p) if p.status == 401));

    let nobody = server.at("http://127.0.0.1:1");
    let err = append(&nobody, lines(events(1))).await.unwrap_err();
    assert!(matches!(err, Error::Unreachable { .. }), "{err}");
    assert!(err.to_string().contains("refused"), "{err}");
}

#[tokio::test]
async fn a_refusal_is_heard_from_a_server_that_hangs_up() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // As on a network: it does not take in what the server has not read.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = async {
        let (mut line, _) = listener.accept().await.unwrap();
        let _ = line.read(&mut [0; 100]).await.unwrap();
        let answer = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        line.write_all(answer.as_bytes()).await.unwrap();
        drop(line);
        std::future::pending::<()>().await;
    };
    let client = Client::new(&url, None).unwrap();
    let long = "x".repeat(100_000);
    let large = (0..40).map(|n| format!(r#"{{"topic":"a","data":{n},"region":"{long}"}}"#));
    let mut appender = client.append(stream::iter(lines(events(1_000).into_iter().chain(large))));
    let err = tokio::select! {
        () = server => unreachable!(),
        next = appender.next() => next.unwrap_err(),
    };
    assert!(
        matches!(&err, Error::Refused(p) if p.status == 401),
        "{err}"
    );
}

#[tokio::test]
async fn an_abandoned_call_loses_nothing() {
    let server = Server::start([]).await;
    let client = Client::new(&server.url, None).unwrap();
    let mut appender = client.append(stream::iter(lines(events(5_000))));
    let (mut answered, mut turns) = (0, 0_u32);
    loop {
        // Given up at whatever point some turns of the runtime bring it to, as in a `select!`; each time a turn later,
        // since a request that is always given up is never answered.
        turns += 1;
        let give_up = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        let next = tokio::select! {
            next = appender.next() => next,
            () = give_up => continue,
        };
        match next.unwrap() {
            Some(Sending::Answered(answers)) => answered += answers.len(),
            Some(Sending::Retrying { .. }) => {}
            None => break,
        }
    }
    assert_eq!(answered, 5_000);
    assert_eq!(stored_data(&server), (0..5_000).collect::<Vec<_>>());
}
