//! Everything at once for a while: nothing grows, nothing lags behind, nothing is lost.
//!
//! Writers of all four priorities (single requests, arrays, NDJSON, SQL), readers that resume again and again over each
//! transport, a slow one, readers of history, and a hundred connections a second that come, get something and leave. What
//! was written, what is committed and what each reader got are compared by number and digest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire::event::digest::IdsDigest;
use tokio::task::JoinSet;

use crate::readers::{self, Got, Kind};
use crate::server::{Database, Server};
use crate::wire::{Http, Ws};

const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];
/// Connections that come and go, a second.
const CHURN: u64 = 100;
/// So few that the window is full long before memory is judged.
const WINDOW_EVENTS: &str = "4000";
/// How long readers may take to get the rest, and the server to have nothing behind.
const SETTLE: Duration = Duration::from_secs(30);
/// Memory is flat if it grows by no more than this many standard deviations of what it varies by, or by [`NOISE_MIB`].
const SIGMAS: f64 = 3.0;
/// What an allocator gives back and takes at any time.
const NOISE_MIB: f64 = 4.0;

/// What is written, and whether it goes on.
pub struct Soak {
    pub address: String,
    is_over: AtomicBool,
    written: Mutex<IdsDigest>,
    next: AtomicU64,
    churned: AtomicU64,
    churn_failed: AtomicU64,
    /// Somewhere to resume from.
    pub cursor: Mutex<String>,
}

impl Soak {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn written(&self) -> IdsDigest {
        *self.written.lock().unwrap()
    }

    /// So many events of that priority, with their ids.
    fn events(&self, priority: &str, count: u64) -> (Vec<String>, Vec<String>) {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let ids: Vec<String> = (first..first + count)
            .map(|n| format!("soak-{n}"))
            .collect();
        let event = |id: &String| {
            format!(
                r#"{{"id":"{id}","topic":"soak.event","subject":"agent-{}","priority":"{priority}","data":{{"text":"some text of the usual length, and some more of it"}}}}"#,
                id.len() % 7
            )
        };
        let events = ids.iter().map(event).collect();
        (ids, events)
    }

    fn acknowledged(&self, ids: &[String]) {
        let mut written = self.written.lock().unwrap();
        for id in ids {
            written.add(id);
        }
    }
}

/// Runs it, prints what it found, and says whether it holds.
pub async fn run(duration: Duration) -> bool {
    let database = Database::new("soak").await;
    let server = Server::start(&database, &["--window-events", WINDOW_EVENTS]).await;
    let soak = Arc::new(Soak {
        address: server.address.clone(),
        is_over: AtomicBool::new(false),
        written: Mutex::default(),
        next: AtomicU64::new(0),
        churned: AtomicU64::new(0),
        churn_failed: AtomicU64::new(0),
        cursor: Mutex::new("earliest".into()),
    });
    let mut followers = JoinSet::new();
    for (number, kind) in Kind::all().into_iter().enumerate() {
        followers.spawn(readers::run(Arc::clone(&soak), kind, number));
    }
    let mut load = JoinSet::new();
    writers(&soak, &database, &mut load).await;
    load.spawn(readers::history(Arc::clone(&soak)));
    load.spawn(churn(Arc::clone(&soak)));
    println!("soak: {} s", duration.as_secs());
    let samples = sample(&server, &database, duration).await;
    soak.is_over.store(true, Ordering::Release);
    load.join_all().await;
    let written = soak.written();
    let got = followers.join_all().await;
    let mut verdicts = Vec::new();
    verdicts.push(flat(
        "server memory",
        "MiB",
        &samples.iter().map(|s| (s.at, s.rss)).collect::<Vec<_>>(),
        NOISE_MIB,
    ));
    verdicts.push(flat(
        "database connections",
        "",
        &samples
            .iter()
            .map(|s| (s.at, s.connections))
            .collect::<Vec<_>>(),
        2.0,
    ));
    verdicts.push(no_lag(&soak.address).await);
    verdicts.push(nothing_lost(&soak, written, &got).await);
    let (churned, failed) = (
        soak.churned.load(Ordering::Relaxed),
        soak.churn_failed.load(Ordering::Relaxed),
    );
    let rate = churned as f64 / duration.as_secs_f64();
    verdicts.push((
        rate >= CHURN as f64 * 0.95 && failed == 0,
        format!("connections came and went: {rate:.0}/s ({churned}), {failed} of them got nothing"),
    ));
    server.stop().await;
    database.drop().await;
    for (passed, text) in &verdicts {
        println!("{}: {text}", if *passed { "passed" } else { "FAILED" });
    }
    verdicts.iter().all(|(passed, _)| *passed)
}

/// Starts them all; each goes at its pace until it is over, and ends with an acknowledged append.
async fn writers(soak: &Arc<Soak>, database: &Database, load: &mut JoinSet<()>) {
    for priority in PRIORITIES {
        load.spawn(post(
            Arc::clone(soak),
            priority,
            1,
            Duration::from_millis(40),
        ));
        load.spawn(post(Arc::clone(soak), priority, 20, Duration::from_secs(1)));
    }
    let own = Arc::clone(soak);
    load.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while !own.is_over() {
            ticks.tick().await;
            let (ids, events) = own.events("normal", 50);
            let answer = Http::upload(&own.address, events.join("\n").into_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(
                answer.contains("200 OK") && !answer.contains("\"status\":4"),
                "{answer}"
            );
            own.acknowledged(&ids);
        }
    });
    let client = database.connect().await;
    let own = Arc::clone(soak);
    load.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while !own.is_over() {
            ticks.tick().await;
            let (ids, _) = own.events("normal", 1);
            let sql = "INSERT INTO tidewire.events (tenant, topic, subject, id, data) VALUES ('dev', 'soak.sql', 'sql', $1, '{\"by\": \"sql\"}')";
            client.execute(sql, &[&ids[0]]).await.unwrap();
            own.acknowledged(&ids);
        }
    });
}

async fn post(soak: Arc<Soak>, priority: &'static str, count: u64, every: Duration) {
    let mut http = Http::connect(&soak.address).await;
    let mut ticks = tokio::time::interval(every);
    while !soak.is_over() {
        ticks.tick().await;
        let (ids, events) = soak.events(priority, count);
        let body = if count == 1 {
            events[0].clone()
        } else {
            format!("[{}]", events.join(","))
        };
        let (status, answer) = http
            .send(&Http::post(&soak.address, "application/json", &body))
            .await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
        soak.acknowledged(&ids);
    }
}

/// Connections that come, resume from a cursor, get something, and leave: every other one a socket, the others streams.
async fn churn(soak: Arc<Soak>) {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / CHURN));
    let mut open = JoinSet::new();
    let mut number = 0_u64;
    while !soak.is_over() {
        ticks.tick().await;
        number += 1;
        while open.try_join_next().is_some() {}
        let soak = Arc::clone(&soak);
        let visit = async move {
            let cursor = soak.cursor.lock().unwrap().clone();
            let visit = async {
                if number.is_multiple_of(2) {
                    let mut ws = Ws::connect(&soak.address).await;
                    ws.subscribe("soak.*", &cursor).await;
                    while !ws.next().await.starts_with(b"{\"type\":\"events\"") {}
                } else {
                    readers::stream_once(&soak.address, &cursor).await;
                }
            };
            let came = tokio::time::timeout(Duration::from_secs(10), visit)
                .await
                .is_ok();
            soak.churned.fetch_add(1, Ordering::Relaxed);
            soak.churn_failed
                .fetch_add(u64::from(!came), Ordering::Relaxed);
        };
        open.spawn(visit);
    }
    open.join_all().await;
}

struct Sample {
    at: f64,
    /// MiB.
    rss: f64,
    connections: f64,
}

async fn sample(server: &Server, database: &Database, duration: Duration) -> Vec<Sample> {
    let client = database.connect().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    while began.elapsed() < duration {
        ticks.tick().await;
        let connections: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        let rss = server.rss_kib() as f64 / 1_024.0;
        let at = began.elapsed().as_secs_f64();
        if samples.len() % 30 == 0 {
            println!("{at:4.0} s: {rss:.1} MiB, {connections} connections to the database");
        }
        samples.push(Sample {
            at,
            rss,
            connections: connections as f64,
        });
    }
    samples
}

/// Whether the last two thirds are flat: a line through them by least squares rises over their length by no more than
/// [`SIGMAS`] standard deviations of what they differ from it by, or by `noise`.
fn flat(what: &str, unit: &str, samples: &[(f64, f64)], noise: f64) -> (bool, String) {
    let kept = &samples[samples.len() / 3..];
    let n = kept.len() as f64;
    let (mean_x, mean_y) = (
        kept.iter().map(|s| s.0).sum::<f64>() / n,
        kept.iter().map(|s| s.1).sum::<f64>() / n,
    );
    let (xy, xx) = kept.iter().fold((0.0, 0.0), |(xy, xx), (x, y)| {
        (xy + (x - mean_x) * (y - mean_y), xx + (x - mean_x).powi(2))
    });
    let slope = xy / xx.max(f64::MIN_POSITIVE);
    let residuals = kept
        .iter()
        .map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2))
        .sum::<f64>();
    let sigma = (residuals / (n - 2.0).max(1.0)).sqrt();
    let growth = slope * (kept[kept.len() - 1].0 - kept[0].0);
    let bound = (sigma * SIGMAS).max(noise);
    let text = format!(
        "{what}: from {:.1} to {:.1} {unit}; over the last two thirds {growth:+.2} {unit} by least squares ({:+.4} {unit} a minute), \
         to be at most {bound:.2} ({SIGMAS:.0} σ of the residuals, {sigma:.2}, or {noise:.0})",
        kept[0].1,
        kept[kept.len() - 1].1,
        slope * 60.0
    );
    (growth <= bound, text)
}

/// Whether nothing is behind, soon: the watermark, readers, consumers.
async fn no_lag(address: &str) -> (bool, String) {
    const BEHIND: [&str; 4] = [
        "tidewire_watermark_lag_events",
        "tidewire_readers_behind",
        "tidewire_consumer_lag_events",
        "tidewire_append_queue",
    ];
    let (began, mut http) = (Instant::now(), Http::connect(address).await);
    loop {
        let (_, text) = http.send(&Http::get(address, "/metrics")).await;
        let text = String::from_utf8(text).unwrap();
        let lines = text
            .lines()
            .filter(|line| BEHIND.iter().any(|name| line.starts_with(name)));
        let behind: Vec<&str> = lines.filter(|line| !line.ends_with(" 0")).collect();
        if behind.is_empty() {
            return (
                true,
                format!(
                    "no lag: watermark, readers, consumers and queues at 0 after {:.1} s",
                    began.elapsed().as_secs_f64()
                ),
            );
        }
        if began.elapsed() > SETTLE {
            return (false, format!("lag is left: {}", behind.join(", ")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether written, committed and delivered are the same.
async fn nothing_lost(soak: &Soak, written: IdsDigest, got: &[Got]) -> (bool, String) {
    let committed = committed(&soak.address).await;
    let expected = (written.count, written.to_string());
    let mut texts = vec![
        format!("written {} ({})", written.count, written),
        format!("committed {} ({})", committed.0, committed.1),
    ];
    let mut is_whole = committed == expected && got.len() == Kind::all().len();
    for one in got {
        let same = (one.digest.count, one.digest.to_string()) == expected;
        is_whole &= same && one.misplaced == 0 && one.stuck == 0;
        let differs = if same {
            String::new()
        } else {
            format!(" ({})", one.digest)
        };
        texts.push(format!(
            "{} {}{differs} in {} lives ({} of them stuck), {} out of order",
            one.name, one.digest.count, one.lives, one.stuck, one.misplaced
        ));
    }
    let audited = match got.iter().find(|one| !one.ids.is_empty()) {
        Some(one) => audit(&soak.address, &one.ids).await,
        None => "no reader ended".into(),
    };
    is_whole &= audited.contains("committed") && !audited.contains("differ");
    texts.push(format!("tidewire audit: {audited}"));
    (is_whole, format!("nothing lost: {}", texts.join("; ")))
}

/// What the database holds, by `GET /v1/audit`.
async fn committed(address: &str) -> (u64, String) {
    let mut http = Http::connect(address).await;
    let (mut after, mut until) = ("earliest".to_owned(), "latest".to_owned());
    let (mut count, mut sum) = (0, 0_u128);
    loop {
        let path = format!("/v1/audit?topics=soak.*&after={after}&until={until}");
        let (status, body) = http.send(&Http::get(address, &path)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        count += answer["count"].as_u64().unwrap();
        sum =
            sum.wrapping_add(u128::from_str_radix(answer["digest"].as_str().unwrap(), 16).unwrap());
        if answer["has_more"] == false {
            return (count, format!("{sum:032x}"));
        }
        answer["through"].as_str().unwrap().clone_into(&mut after);
        answer["until"].as_str().unwrap().clone_into(&mut until);
    }
}

/// The last line of what `tidewire audit` says.
async fn audit(address: &str, ids: &[String]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ids.join("\n")).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args([
            "audit",
            "--url",
            &format!("http://{address}"),
            "--topics",
            "soak.*",
            "--received",
        ])
        .arg(file.path());
    let output = command.output().await.unwrap();
    let text = if output.status.success() {
        output.stdout
    } else {
        [b"differ: ", output.stderr.as_slice()].concat()
    };
    String::from_utf8_lossy(&text)
        .trim()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}
