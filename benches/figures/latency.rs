//! From a POST to the frame that arrives, against INSERT and NOTIFY to LISTEN in plain SQL.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::server::{Database, Server};
use crate::wire::{Http, Ws};
use crate::{Figure, percentile};

const READERS: usize = 50;
const RATE: u64 = 500;
const EVENTS: usize = 5_000;
const WRITERS: usize = 8;

pub async fn run() -> Vec<Figure> {
    let mut theirs = plain().await;
    let mut ours = ours().await;
    [(0.5, "p50", "≤ 3"), (0.99, "p99", "≤ 4")]
        .map(|(p, name, reach)| {
            let (a, b) = (percentile(&mut ours, p), percentile(&mut theirs, p));
            Figure {
                what: if name == "p50" {
                    "POST sent → WebSocket frame received, 500 events/s, 50 readers, p50 · INSERT+NOTIFY → LISTEN"
                } else {
                    "the same, p99"
                },
                ours: format!("{a:.2} ms"),
                against: format!("{b:.2} ms"),
                ratio: a / b,
                reach,
            }
        })
        .into()
}

/// At a fixed rate, whatever the answers do: an open loop.
async fn ours() -> Vec<f64> {
    let database = Database::new("latency").await;
    let server = Server::start(&database, &[]).await;
    let began = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let mut ws = Ws::connect(&server.address).await;
        ws.subscribe("bench.*", "latest").await;
        ws.until_live().await;
        readers.spawn(async move {
            let mut delays = Vec::with_capacity(EVENTS);
            while delays.len() < EVENTS {
                let frame = ws.next().await;
                let now = began.elapsed().as_secs_f64() * 1e3;
                let text = std::str::from_utf8(frame).unwrap();
                // `"sent": 12.345` once for each event of the frame.
                for part in text.split("\"sent\": ").skip(1) {
                    let end = part.find('}').unwrap();
                    delays.push(now - part[..end].parse::<f64>().unwrap());
                }
            }
            delays
        });
    }
    let (sender, receiver) = async_queue();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (address, receiver) = (server.address.clone(), receiver.clone());
        writers.spawn(async move {
            let mut http = Http::connect(&address).await;
            while let Some(()) = receiver.lock().await.recv().await {
                let sent = began.elapsed().as_secs_f64() * 1e3;
                let body = format!(r#"{{"topic":"bench.latency","data":{{"sent":{sent:.3}}}}}"#);
                let (status, _) = http
                    .send(&Http::post(&address, "application/json", &body))
                    .await;
                assert_eq!(status, 201);
            }
        });
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    for _ in 0..EVENTS {
        ticks.tick().await;
        sender.send(()).await.unwrap();
    }
    drop(sender);
    let delays = readers.join_all().await.concat();
    writers.join_all().await;
    server.stop().await;
    database.drop().await;
    delays
}

type Shared = std::sync::Arc<tokio::sync::Mutex<mpsc::Receiver<()>>>;

fn async_queue() -> (mpsc::Sender<()>, Shared) {
    let (sender, receiver) = mpsc::channel(1_000);
    (
        sender,
        std::sync::Arc::new(tokio::sync::Mutex::new(receiver)),
    )
}

/// A plain table, INSERT and NOTIFY in one statement, one listener: what a page of SQL would do.
async fn plain() -> Vec<f64> {
    let database = Database::new("plain").await;
    let setup = database.connect().await;
    setup
        .batch_execute("CREATE TABLE plain (id bigserial PRIMARY KEY, data jsonb)")
        .await
        .unwrap();
    let (listener, mut connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1_000);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message
                && sender.send(Instant::now()).await.is_err()
            {
                return;
            }
        }
    });
    listener.batch_execute("LISTEN plain").await.unwrap();
    let writer = database.connect().await;
    let insert = writer
        .prepare("WITH stored AS (INSERT INTO plain (data) VALUES ($1::text::jsonb) RETURNING id) SELECT pg_notify('plain', id::text) FROM stored")
        .await
        .unwrap();
    let mut delays = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    for _ in 0..EVENTS {
        ticks.tick().await;
        let sent = Instant::now();
        writer.query(&insert, &[&r#"{"sent":1}"#]).await.unwrap();
        let at = receiver.recv().await.unwrap();
        delays.push(at.duration_since(sent).as_secs_f64() * 1e3);
    }
    drop((listener, writer, setup));
    database.drop().await;
    delays
}
