//! How fast events become durable.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use tokio::task::JoinSet;

use crate::server::{Database, Server};
use crate::wire::Http;
use crate::{Figure, percentile};

const CLIENTS: usize = 64;
const SECONDS: u64 = 8;
const DATA: &str = r#"{"status":"running","progress":0.5,"task":"t-123456789","note":"some text of the usual length"}"#;

/// Single-event POSTs over 64 connections, against pgbench's single-row inserts that always notify.
pub async fn posts() -> Figure {
    let database = Database::new("posts").await;
    let server = Server::start(&database, &[]).await;
    // A warm-up of both sides, then the two in turn, twice.
    measure_posts(&server.address, 2).await;
    let (mut ours, mut theirs) = (0.0, 0.0);
    for _ in 0..2 {
        theirs += pgbench(&database).await / 2.0;
        ours += measure_posts(&server.address, SECONDS).await / 2.0;
    }
    server.stop().await;
    database.drop().await;
    Figure {
        what: "durable single-event POSTs/s, 64 connections · pgbench single-row inserts, always notifying, 64 clients",
        ours: format!("{ours:.0}/s"),
        against: format!("{theirs:.0}/s"),
        ratio: ours / theirs,
        reach: "≥ 4",
    }
}

async fn measure_posts(address: &str, seconds: u64) -> f64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = address.to_owned();
        clients.spawn(async move {
            let body = format!(
                r#"{{"topic":"agent.state.updated","subject":"agent-{number}","data":{DATA}}}"#
            );
            let request = Http::post(&address, "application/json", &body);
            let mut http = Http::connect(&address).await;
            let mut count = 0_u64;
            while Instant::now() < until {
                let (status, body) = http.send(&request).await;
                assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
                count += 1;
            }
            count
        });
    }
    let began = Instant::now();
    let total: u64 = clients.join_all().await.into_iter().sum();
    total as f64 / began.elapsed().as_secs_f64().max(seconds as f64)
}

async fn pgbench(database: &Database) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("insert.sql");
    let sql = format!(
        "INSERT INTO tidewire.events (tenant, topic, subject, id, data) VALUES ('dev', 'agent.state.updated', 'agent-7', tidewire.new_id(), '{DATA}');\n"
    );
    std::fs::write(&script, sql).unwrap();
    let bin = std::env::var("TIDEWIRE_POSTGRES_BIN").expect("run script/bench");
    let output = tokio::process::Command::new(format!("{bin}/pgbench"))
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            "64",
            "-j",
            "2",
            "-T",
            &SECONDS.to_string(),
            "-f",
        ])
        .arg(&script)
        .arg(&database.url)
        .env("PGOPTIONS", "-c tidewire.notify=always")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    tps.split(' ').next().unwrap().parse().unwrap()
}

/// NDJSON through the server, against COPY of the same rows into the same table over one connection.
pub async fn ndjson() -> Figure {
    const ROWS: usize = 200_000;
    const ROUNDS: usize = 7;
    let database = Database::new("ndjson").await;
    let server = Server::start(&database, &[]).await;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let began = Instant::now();
        copy(&database, round, ROWS).await;
        let copied = ROWS as f64 / began.elapsed().as_secs_f64();
        let mut body = String::new();
        for row in 0..ROWS {
            let id = id(round + 100, row);
            writeln!(body, r#"{{"id":"{id}","topic":"agent.state.updated","subject":"agent-{}","data":{DATA}}}"#, row % 50).unwrap();
        }
        let began = Instant::now();
        let answer = Http::upload(&server.address, body.into_bytes()).await;
        let uploaded = ROWS as f64 / began.elapsed().as_secs_f64();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(&format!("\"stored\":{ROWS}")), "{answer}");
        ours.push(uploaded);
        theirs.push(copied);
        ratios.push(uploaded / copied);
    }
    server.stop().await;
    database.drop().await;
    Figure {
        what: "durable events/s, NDJSON · one-connection COPY of the same rows into the same table (medians of 7 rounds)",
        ours: format!("{:.0}/s", percentile(&mut ours, 0.5)),
        against: format!("{:.0}/s", percentile(&mut theirs, 0.5)),
        ratio: percentile(&mut ratios, 0.5),
        reach: "≥ 0.6",
    }
}

/// Ids that rise with time, as `UUIDv7` do.
fn id(round: usize, row: usize) -> String {
    format!(
        "{:08x}-{:04x}-7000-8000-{row:012x}",
        0x0190_0000 + round,
        row >> 16
    )
}

async fn copy(database: &Database, round: usize, rows: usize) {
    let client = database.connect().await;
    let sink = client
        .copy_in("COPY tidewire.events (tenant, id, topic, subject, source, data) FROM STDIN")
        .await
        .unwrap();
    let mut sink = std::pin::pin!(sink);
    let mut chunk = String::new();
    for row in 0..rows {
        let id = id(round, row);
        writeln!(
            chunk,
            "dev\t{id}\tagent.state.updated\tagent-{}\tdeveloper\t{DATA}",
            row % 50
        )
        .unwrap();
        if chunk.len() > 64 * 1024 {
            sink.send(bytes::Bytes::from(std::mem::take(&mut chunk)))
                .await
                .unwrap();
        }
    }
    sink.send(bytes::Bytes::from(chunk)).await.unwrap();
    sink.finish().await.unwrap();
}
