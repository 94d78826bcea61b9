//! Many readers: one event to a thousand, ten thousand idle ones, a storm of those who come back.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::server::{Database, Server};
use crate::wire::{Http, Ws};
use crate::{Figure, percentile};

const SOCKETS: usize = 1_000;
const ROUNDS: usize = 200;

/// One event to a thousand sockets, against the same bytes written to a thousand sockets by a bare loop.
pub async fn fanout() -> Figure {
    let database = Database::new("fanout").await;
    let server = Server::start(&database, &[]).await;
    let (received, mut count) = mpsc::channel::<usize>(SOCKETS * 2);
    let mut readers = JoinSet::new();
    for _ in 0..SOCKETS {
        let mut ws = Ws::connect(&server.address).await;
        ws.subscribe("bench.*", "latest").await;
        ws.until_live().await;
        let received = received.clone();
        readers.spawn(async move {
            loop {
                let bytes = ws.next().await.len();
                if received.send(bytes).await.is_err() {
                    return;
                }
            }
        });
    }
    let request = Http::post(
        &server.address,
        "application/json",
        r#"{"topic":"bench.fanout","data":{"status":"running","progress":0.5}}"#,
    );
    let mut http = Http::connect(&server.address).await;
    let mut frame_bytes = 0;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let (status, _) = http.send(&request).await;
        assert_eq!(status, 201);
        for _ in 0..SOCKETS {
            frame_bytes = count.recv().await.unwrap();
        }
    }
    let ours = (SOCKETS * ROUNDS) as f64 / began.elapsed().as_secs_f64();
    readers.shutdown().await;
    server.stop().await;
    database.drop().await;
    let theirs = bare_loop(frame_bytes + 4).await;
    Figure {
        what: "deliveries/s, 1 event to 1,000 sockets · the same bytes to 1,000 raw sockets by a bare loop",
        ours: format!("{ours:.0}/s"),
        against: format!("{theirs:.0}/s"),
        ratio: ours / theirs,
        reach: "≥ 0.5",
    }
}

async fn bare_loop(bytes: usize) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, mut count) = mpsc::channel::<()>(SOCKETS * 2);
    let mut sockets = Vec::new();
    let mut readers = JoinSet::new();
    for _ in 0..SOCKETS {
        let mut client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        sockets.push(server);
        let received = received.clone();
        readers.spawn(async move {
            let mut buffer = vec![0; bytes];
            while client.read_exact(&mut buffer).await.is_ok() {
                if received.send(()).await.is_err() {
                    return;
                }
            }
        });
    }
    let payload = vec![b'x'; bytes];
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for socket in &mut sockets {
            socket.write_all(&payload).await.unwrap();
        }
        for _ in 0..SOCKETS {
            count.recv().await.unwrap();
        }
    }
    let rate = (SOCKETS * ROUNDS) as f64 / began.elapsed().as_secs_f64();
    readers.shutdown().await;
    rate
}

/// Memory of ten thousand idle sockets with a subscription each.
pub async fn memory() -> Figure {
    const IDLE: usize = 10_000;
    let database = Database::new("memory").await;
    let server = Server::start(&database, &[]).await;
    let before = server.rss_kib();
    let mut sockets = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut ws = Ws::connect(&server.address).await;
        ws.subscribe(&format!("idle.s{number}.*"), "latest").await;
        ws.until_live().await;
        sockets.push(ws);
    }
    let each = (server.rss_kib() - before) as f64 / IDLE as f64;
    drop(sockets);
    server.stop().await;
    database.drop().await;
    Figure {
        what: "memory per idle WebSocket at 10,000",
        ours: format!("{each:.1} KiB"),
        against: "–".to_owned(),
        ratio: each,
        reach: "≤ 16 KiB",
    }
}

/// Live latency while a thousand readers, each a thousand events behind, come back at once; against live latency alone.
pub async fn storm() -> Figure {
    const BEHIND: usize = 1_000;
    const COMING: usize = 1_000;
    let database = Database::new("storm").await;
    let server = Server::start(&database, &[]).await;
    let mut http = Http::connect(&server.address).await;
    let events: Vec<String> = (0..BEHIND).map(|n| format!(r#"{{"topic":"past.event","data":{{"n":{n},"text":"some text of the usual length"}}}}"#)).collect();
    let (status, _) = http
        .send(&Http::post(
            &server.address,
            "application/json",
            &format!("[{}]", events.join(",")),
        ))
        .await;
    assert_eq!(status, 201);
    let calm = probe(&server.address, Duration::from_secs(6)).await;
    let address = server.address.clone();
    let storm = tokio::spawn(async move {
        let mut readers = JoinSet::new();
        for _ in 0..COMING {
            let address = address.clone();
            readers.spawn(async move {
                let mut ws = Ws::connect(&address).await;
                ws.subscribe("past.*", "earliest").await;
                ws.until_live().await;
            });
        }
        readers.join_all().await;
    });
    let stormy = probe(&server.address, Duration::from_secs(6)).await;
    storm.await.unwrap();
    server.stop().await;
    database.drop().await;
    Figure {
        what: "live p99 while 1,000 readers resume 1,000 events behind · live p99 without",
        ours: format!("{stormy:.2} ms"),
        against: format!("{calm:.2} ms"),
        ratio: stormy / calm,
        reach: "≤ 2",
    }
}

/// The live reader and its writer have a thread of their own: what is measured is the server, not how the load's tasks
/// wait for each other.
async fn probe(address: &str, time: Duration) -> f64 {
    let address = address.to_owned();
    let measured = tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(live_p99(&address, time))
    });
    measured.await.unwrap()
}

/// A reader and a writer at 100 events/s.
async fn live_p99(address: &str, time: Duration) -> f64 {
    let mut ws = Ws::connect(address).await;
    ws.subscribe("live.*", "latest").await;
    ws.until_live().await;
    let began = Instant::now();
    let writer = address.to_owned();
    let writing = tokio::spawn(async move {
        let mut http = Http::connect(&writer).await;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut count = 0;
        while began.elapsed() < time {
            ticks.tick().await;
            let sent = began.elapsed().as_secs_f64() * 1e3;
            let body = format!(r#"{{"topic":"live.event","data":{{"sent":{sent:.3}}}}}"#);
            assert_eq!(
                http.send(&Http::post(&writer, "application/json", &body))
                    .await
                    .0,
                201
            );
            count += 1;
        }
        count
    });
    let mut delays = Vec::new();
    let mut writing = Some(writing);
    let mut wanted = usize::MAX;
    while delays.len() < wanted {
        let text = String::from_utf8_lossy(ws.next().await).into_owned();
        let now = began.elapsed().as_secs_f64() * 1e3;
        for part in text.split("\"sent\": ").skip(1) {
            delays.push(now - part[..part.find('}').unwrap()].parse::<f64>().unwrap());
        }
        if began.elapsed() >= time
            && let Some(writing) = writing.take()
        {
            wanted = writing.await.unwrap();
        }
    }
    percentile(&mut delays, 0.99)
}
