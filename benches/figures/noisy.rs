//! Two tenants on one server: what the one notices of the other, which offers ten times what it may append.

use std::time::{Duration, Instant};

use tidewire::access::jwt::{self, Claims};
use tidewire::access::{Role, Secret};
use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::server::{Database, Server};
use super::wire::{Http, Ws};
use super::{Figure, percentile};

const SECRET: &str = "a secret of the figures, which nobody else knows";
/// Events a second that a tenant may append.
const RATE: usize = 200;
/// What the noisy one offers every ten milliseconds, over each of three ways: ten times its rate together.
const EACH: usize = RATE * 10 / 100 / 3;
const TICK: Duration = Duration::from_millis(10);
/// The two sides in turn, so that what else the machine does falls on both; p99 is that of all rounds together, since of one
/// it is the eighth-worst of 800 and varies by half.
const ROUNDS: u32 = 6;
const ROUND: Duration = Duration::from_secs(5);

fn token(tenant: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let claims = Claims {
        sub: tenant.into(),
        exp: now.unwrap().as_secs() + 3_600,
        tenant: tenant.into(),
        role: Role::Admin,
        read: vec!["*".into()],
        write: vec!["*".into()],
    };
    jwt::issue(&Secret::new(SECRET), &claims).unwrap()
}

fn post(address: &str, token: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Milliseconds until the answer, and until the reader has the event.
#[derive(Default)]
struct Samples {
    appends: Vec<f64>,
    lives: Vec<f64>,
}

impl Samples {
    fn add(&mut self, more: Self) {
        self.appends.extend(more.appends);
        self.lives.extend(more.lives);
    }
}

fn p99(samples: &mut [f64]) -> f64 {
    percentile(samples, 0.99)
}

/// The quiet tenant alone, then beside the noisy one: p99 of its appends and of its live events.
pub async fn run() -> [Figure; 2] {
    let database = Database::new("noisy").await;
    let rate = format!("{RATE}:{RATE}");
    let arguments = ["--jwt-secret", SECRET, "--tenant-events-rate", &rate];
    let server = Server::start(&database, &arguments).await;
    let (quiet, noisy) = (token("quiet"), token("noisy"));
    // Connections, plans and caches are warm for both sides.
    measure(&server.address, &quiet, Duration::from_secs(2)).await;
    let (mut alone, mut beside) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        alone.add(measure(&server.address, &quiet, ROUND).await);
        let mut load = JoinSet::new();
        load.spawn(posts(server.address.clone(), noisy.clone()));
        load.spawn(frames(server.address.clone(), noisy.clone()));
        load.spawn(lines(server.address.clone(), noisy.clone()));
        beside.add(measure(&server.address, &quiet, ROUND).await);
        load.shutdown().await;
    }
    server.stop().await;
    database.drop().await;
    let figure = |what, (alone, beside): (f64, f64)| Figure {
        what,
        ours: format!("{beside:.2} ms"),
        against: format!("{alone:.2} ms"),
        ratio: beside / alone,
        reach: "≤ 1.5",
    };
    [
        figure(
            "append p99 of a tenant beside one that offers ten times its limit · alone",
            (p99(&mut alone.appends), p99(&mut beside.appends)),
        ),
        figure(
            "live p99 of a tenant beside one that offers ten times its limit · alone",
            (p99(&mut alone.lives), p99(&mut beside.lives)),
        ),
    ]
}

/// The measured tenant has a thread of its own.
async fn measure(address: &str, token: &str, time: Duration) -> Samples {
    let (address, token) = (address.to_owned(), token.to_owned());
    let measured = tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(sample(&address, &token, time))
    });
    measured.await.unwrap()
}

/// A writer at 100 events/s and a reader.
async fn sample(address: &str, token: &str, time: Duration) -> Samples {
    let mut ws = Ws::connect_as(address, Some(token)).await;
    ws.subscribe("quiet.*", "latest").await;
    ws.until_live().await;
    let mut http = Http::connect(address).await;
    let mut ticks = tokio::time::interval(TICK);
    let (mut appends, mut lives) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < time {
        ticks.tick().await;
        let sent = Instant::now();
        let request = post(address, token, r#"{"topic":"quiet.event","data":{"n":1}}"#);
        let stored = async {
            assert_eq!(http.send(&request).await.0, 201);
            appends.push(sent.elapsed().as_secs_f64() * 1e3);
        };
        let received = async {
            ws.next().await;
            lives.push(sent.elapsed().as_secs_f64() * 1e3);
        };
        tokio::join!(stored, received);
    }
    Samples { appends, lives }
}

async fn posts(address: String, token: String) {
    let mut http = Http::connect(&address).await;
    let request = post(&address, &token, r#"{"topic":"noisy.post","data":{"n":1}}"#);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        for _ in 0..EACH {
            let (status, _) = http.send(&request).await;
            assert!(matches!(status, 201 | 429), "{status}");
        }
    }
}

async fn frames(address: String, token: String) {
    let frame = r#"{"type":"append","events":{"topic":"noisy.frame","data":{"n":1}}}"#;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let mut ws = Ws::connect_as(&address, Some(&token)).await;
        // Until it is told to go: 4429.
        'open: loop {
            ticks.tick().await;
            for _ in 0..EACH {
                ws.send(frame).await;
            }
            for _ in 0..EACH {
                if !ws.is_answered().await {
                    break 'open;
                }
            }
        }
    }
}

async fn lines(address: String, token: String) {
    let (mut read, mut write) = TcpStream::connect(&address).await.unwrap().into_split();
    let mut results = JoinSet::new();
    results.spawn(async move { copy(&mut read, &mut sink()).await });
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let lines = "{\"topic\":\"noisy.line\",\"data\":{\"n\":1}}\n".repeat(EACH);
    let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        // What the server does not take now waits here.
        write.write_all(chunk.as_bytes()).await.unwrap();
    }
}
