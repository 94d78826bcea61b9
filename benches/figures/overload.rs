//! Ten times as much as the server can take, in all four priorities: what is still done, and how fast.
//!
//! The load is an open loop: when each request is due is fixed before it begins, and its latency counts from then, so that a
//! server that is slow cannot slow down what measures it. Generator, server and database share the machine, and a request
//! that is refused costs both sides nearly as much as one that is stored. So capacity is made small, by a disk that takes
//! [`DISK_US`] for a commit and statements of [`BATCH`] events: ten times that can then really be offered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::machine::Used;
use crate::percentile;
use crate::server::{Database, Server};
use crate::wire::{Http, Ws};

/// What a commit waits for, in microseconds, beside the real disk.
const DISK_US: u32 = 5_000;
/// Events of a statement.
const BATCH: &str = "3";
/// How much more is offered than can be done.
const TIMES: f64 = 10.0;
/// Writers of the closed loop.
const WRITERS: usize = 64;
/// Not counted at the beginning of each part.
const WARM: Duration = Duration::from_secs(3);
const PEAK: Duration = Duration::from_secs(10);
const OVERLOAD: Duration = Duration::from_secs(30);
/// Of the peak that must still be done.
const GOODPUT: f64 = 0.8;

/// A priority, its share of what is offered, connections, and what is aimed for from receipt to socket.
struct Class {
    name: &'static str,
    share: f64,
    connections: usize,
    target: (f64, f64),
}

/// Critical and high events are a tenth and a fifth of the *capacity*, as urgent things are rare; the rest is far beyond it.
const CLASSES: [Class; 4] = [
    Class {
        name: "critical",
        share: 0.01,
        connections: 64,
        target: (0.95, 50.0),
    },
    Class {
        name: "high",
        share: 0.02,
        connections: 64,
        target: (0.95, 50.0),
    },
    Class {
        name: "normal",
        share: 0.37,
        connections: 3_000,
        target: (0.99, 100.0),
    },
    Class {
        name: "low",
        share: 0.60,
        connections: 2_000,
        target: (0.99, 500.0),
    },
];

/// What became of the requests of a class.
#[derive(Default)]
struct Sent {
    /// Due, and so offered, in the time that counts.
    offered: u64,
    /// Sent more than a moment after they were due: all connections were busy.
    late: u64,
    stored: u64,
    refused: BTreeMap<String, u64>,
    /// Milliseconds from when it was due until its answer; of those stored.
    committed: Vec<f64>,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.offered += other.offered;
        self.late += other.late;
        self.stored += other.stored;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.committed.extend(other.committed);
    }

    fn answered(&mut self, answer: &std::io::Result<(u16, Vec<u8>)>, after: f64) {
        match answer {
            Ok((201, _)) => {
                self.stored += 1;
                self.committed.push(after);
            }
            Ok((status, body)) => {
                let body = String::from_utf8_lossy(body);
                // The last part of the problem's type says which it is.
                let rest = body.split("\"type\":\"").nth(1).unwrap_or_default();
                let code = rest.split('"').next().unwrap_or_default();
                let code = code.rsplit(['/', '#', ':']).next();
                let code = format!("{status} {}", code.unwrap_or_default());
                *self.refused.entry(code).or_default() += 1;
            }
            Err(_) => *self.refused.entry("line lost".into()).or_default() += 1,
        }
    }
}

fn request(address: &str, class: usize, due: f64) -> Vec<u8> {
    let priority = CLASSES[class].name;
    let body = format!(
        r#"{{"topic":"load.event","priority":"{priority}","subject":"agent-7","data":{{"c":{class},"due":{due:.3},"note":"some text of the usual length"}}}}"#
    );
    Http::post(address, "application/json", &body)
}

/// Runs it, prints its table, and says whether it holds.
pub async fn run() -> bool {
    let database = Database::new("overload").await;
    let name = database.url.rsplit('/').next().unwrap();
    let slow = format!(
        "ALTER DATABASE {name} SET commit_delay = {DISK_US}; ALTER DATABASE {name} SET commit_siblings = 0"
    );
    database.connect().await.batch_execute(&slow).await.unwrap();
    let server = Server::start(&database, &["--batch-events-max", BATCH]).await;
    let peak = closed(&server.address).await;
    println!(
        "peak: {peak:.0} events/s stored, {WRITERS} writers in a closed loop, a commit takes {} ms longer, {BATCH} events a statement",
        DISK_US / 1_000
    );
    let reader = Reader::start(&server.address).await;
    let before = (Used::now(server.pid()), metrics(&server.address).await);
    let began = Instant::now();
    let mut sent = offer(&server.address, peak * TIMES, reader.epoch).await;
    let seconds = began.elapsed().as_secs_f64();
    let used = Used::now(server.pid()).since(before.0, seconds);
    let lives = reader.stop().await;
    let histograms = metrics(&server.address).await;
    server.stop().await;
    database.drop().await;
    let is_critical_in_time = table(&mut sent, lives, (&before.1, &histograms));
    let counted = OVERLOAD.as_secs_f64();
    let total = |of: fn(&Sent) -> u64| sent.iter().map(of).sum::<u64>() as f64 / counted;
    let (offered, stored, late) = (total(|s| s.offered), total(|s| s.stored), total(|s| s.late));
    println!("processor time: {used}");
    let batch = |p| {
        quantile(
            (&before.1, &histograms),
            "tidewire_batch_seconds_bucket{",
            p,
        )
        .unwrap_or_default()
    };
    println!(
        "the database took for a batch: p50 {:.0}, p95 {:.0}, p99 {:.0} ms",
        batch(0.5),
        batch(0.95),
        batch(0.99)
    );
    println!(
        "offered: {offered:.0}/s, {:.1} times the peak; {:.1} % of it sent late, since all connections of the class were busy",
        offered / peak,
        late / offered * 100.0
    );
    let is_offered = offered / peak >= TIMES * 0.95 && late / offered < 0.05;
    let is_kept = stored / peak >= GOODPUT;
    let verdict = |is: bool| if is { "passed" } else { "FAILED" };
    println!(
        "{}: ten times the peak was really offered",
        verdict(is_offered)
    );
    println!(
        "{}: goodput {stored:.0}/s is {:.0} % of the peak, to be {:.0} %",
        verdict(is_kept),
        stored / peak * 100.0,
        GOODPUT * 100.0
    );
    println!(
        "{}: critical within its target",
        verdict(is_critical_in_time)
    );
    is_offered && is_kept && is_critical_in_time
}

/// A line for each class; whether critical events came in time.
fn table(sent: &mut [Sent], lives: [Vec<f64>; 4], (then, now): (&str, &str)) -> bool {
    println!(
        "| class | offered/s | stored/s | refused | due → answer p50 / p95 / p99 ms | due → socket p50 / p95 / p99 ms | receipt → socket p95 / p99 ms | target |\n|---|---|---|---|---|---|---|---|"
    );
    let counted = OVERLOAD.as_secs_f64();
    let mut is_critical_in_time = false;
    for (class, (sent, mut lives)) in CLASSES.iter().zip(sent.iter_mut().zip(lives)) {
        let refused: Vec<String> = sent
            .refused
            .iter()
            .map(|(code, n)| format!("{:.0}/s {code}", *n as f64 / counted))
            .collect();
        let name = class.name;
        let delivery = format!(
            "tidewire_delivery_seconds_bucket{{priority=\"{name}\",transport=\"websocket\","
        );
        let at_server = |p| quantile((then, now), &delivery, p);
        let (share, limit) = class.target;
        let reached = at_server(share);
        if class.name == "critical" {
            is_critical_in_time = reached.is_some_and(|ms| ms < limit);
        }
        let ms = |value: Option<f64>| value.map_or("–".into(), |ms| format!("{ms:.0}"));
        println!(
            "| {} | {:.0} | {:.0} | {} | {} | {} | {} / {} | p{:.0} < {limit:.0}: {} |",
            class.name,
            sent.offered as f64 / counted,
            sent.stored as f64 / counted,
            if refused.is_empty() {
                "–".into()
            } else {
                refused.join(", ")
            },
            spread(&mut sent.committed),
            spread(&mut lives),
            ms(at_server(0.95)),
            ms(at_server(0.99)),
            share * 100.0,
            if reached.is_some_and(|ms| ms < limit) {
                "yes"
            } else {
                "no"
            },
        );
    }
    is_critical_in_time
}

fn spread(values: &mut [f64]) -> String {
    if values.is_empty() {
        return "–".into();
    }
    [0.5, 0.95, 0.99]
        .map(|p| format!("{:.0}", percentile(values, p)))
        .join(" / ")
}

/// Events a second, as many as there is room for, each writer waiting for its answer. Of normal priority: the most that one
/// can store while nothing is urgent.
async fn closed(address: &str) -> f64 {
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let address = address.to_owned();
        writers.spawn(async move {
            let mut http = Http::connect(&address).await;
            let request = request(&address, 2, 0.0);
            let mut count = 0_u64;
            while began.elapsed() < WARM + PEAK {
                let (status, _) = http.send(&request).await;
                count += u64::from(status == 201 && began.elapsed() > WARM);
            }
            count
        });
    }
    let total: u64 = writers.join_all().await.into_iter().sum();
    total as f64 / PEAK.as_secs_f64()
}

/// Offers so many events a second, and waits for all answers.
async fn offer(address: &str, rate: f64, epoch: Instant) -> Vec<Sent> {
    // Connections first: they are no part of the load. Their times begin together.
    let begin = Instant::now() + Duration::from_secs(2);
    let mut all = Vec::new();
    for (class, of) in CLASSES.iter().enumerate() {
        let mut connections = JoinSet::new();
        let next = Arc::new(AtomicU64::new(0));
        for _ in 0..of.connections {
            let (address, next) = (address.to_owned(), Arc::clone(&next));
            let every = 1.0 / (rate * of.share);
            connections
                .spawn(async move { arrivals(&address, class, &next, every, begin, epoch).await });
        }
        all.push(connections);
    }
    let mut sent = Vec::new();
    for connections in all {
        let mut class = Sent::default();
        for one in connections.join_all().await {
            class.add(one);
        }
        sent.push(class);
    }
    sent
}

/// One connection: takes the next arrival of its class, waits for its time, sends it.
async fn arrivals(
    address: &str,
    class: usize,
    next: &AtomicU64,
    every: f64,
    begin: Instant,
    epoch: Instant,
) -> Sent {
    let mut sent = Sent::default();
    let mut http = Http::connect(address).await;
    loop {
        let at = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 * every);
        if at > WARM + OVERLOAD {
            return sent;
        }
        let due = begin + at;
        tokio::time::sleep_until(due.into()).await;
        let lateness = due.elapsed();
        let due_ms = due.duration_since(epoch).as_secs_f64() * 1e3;
        let answer = http.try_send(&request(address, class, due_ms)).await;
        if answer.is_err() {
            http = Http::connect(address).await;
        }
        if at > WARM {
            sent.offered += 1;
            sent.late += u64::from(lateness > Duration::from_millis(50));
            sent.answered(&answer, due.elapsed().as_secs_f64() * 1e3);
        }
    }
}

/// A socket that gets everything.
struct Reader {
    epoch: Instant,
    stop: tokio::sync::oneshot::Sender<()>,
    reading: tokio::task::JoinHandle<[Vec<f64>; 4]>,
}

impl Reader {
    async fn start(address: &str) -> Self {
        let epoch = Instant::now();
        let mut ws = Ws::connect(address).await;
        ws.subscribe("load.*", "latest").await;
        ws.until_live().await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut lives: [Vec<f64>; 4] = Default::default();
            loop {
                let frame = tokio::select! {
                    frame = ws.next() => frame,
                    _ = &mut stopped => return lives,
                };
                let now = epoch.elapsed().as_secs_f64() * 1e3;
                // As the database prints it.
                for part in String::from_utf8_lossy(frame).split("{\"c\": ").skip(1) {
                    let class: usize = part[..1].parse().unwrap();
                    let due = &part[part.find("\"due\": ").unwrap() + 7..];
                    let end = due.find([',', '}']).unwrap();
                    lives[class].push(now - due[..end].parse::<f64>().unwrap());
                }
            }
        });
        Self {
            epoch,
            stop,
            reading,
        }
    }

    async fn stop(self) -> [Vec<f64>; 4] {
        let _ = self.stop.send(());
        self.reading.await.unwrap()
    }
}

async fn metrics(address: &str) -> String {
    let mut http = Http::connect(address).await;
    let (status, body) = http.send(&Http::get(address, "/metrics")).await;
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// Of what the server has measured in between: in milliseconds, linear within a bucket. `series`: name and labels.
fn quantile((before, after): (&str, &str), series: &str, p: f64) -> Option<f64> {
    let prefix = series.to_owned() + "le=\"";
    let buckets = |text: &str| -> Vec<(f64, f64)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        lines
            .map(|line| {
                let (bound, count) = line.split_once("\"} ").unwrap();
                (
                    bound.parse().unwrap_or(f64::INFINITY),
                    count.parse().unwrap(),
                )
            })
            .collect()
    };
    let (then, now) = (buckets(before), buckets(after));
    let counts: Vec<(f64, f64)> = now
        .iter()
        .zip(&then)
        .map(|(a, b)| (a.0, a.1 - b.1))
        .collect();
    let rank = counts.last()?.1 * p;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, upto) in counts {
        if upto >= rank && upto > 0.0 {
            let part = (rank - below) / (upto - below).max(1.0);
            return Some(if bound.is_finite() {
                (low + (bound - low) * part) * 1e3
            } else {
                f64::INFINITY
            });
        }
        (low, below) = (bound, upto);
    }
    None
}
