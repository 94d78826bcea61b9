//! What alerts are for, done to a live server: the real program on a real PostgreSQL, most often with a proxy between them.
//! Each scrapes it before, while its cause lasts, and after.

pub mod consumers;
pub mod sessions;

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::scrapes::{Scrape, Scrapes};
use crate::support::client::Ws;
use crate::support::{Api, Process, Proxy, TestDb};

/// So often a program that is at work does the next thing.
const TICK: Duration = Duration::from_millis(50);

/// The server, what is behind it, and whoever is at work.
struct Site {
    process: Process,
    proxy: Proxy,
    db: TestDb,
    at_work: JoinSet<()>,
}

impl Site {
    async fn start(settings: &[&str]) -> Self {
        let db = TestDb::new().await;
        let (proxy, url) = Proxy::before_database(&db.url).await;
        Self {
            process: Process::start(&url, settings).await,
            proxy,
            db,
            at_work: JoinSet::new(),
        }
    }

    fn api(&self) -> &Api {
        &self.process.api
    }

    /// So many writers send an array of this each tick, or when the last one has been answered.
    fn write(&mut self, writers: usize, events: &Value) {
        for _ in 0..writers {
            let (api, events) = (self.api().clone(), events.clone());
            self.at_work.spawn(async move {
                let mut ticks = interval(TICK);
                loop {
                    ticks.tick().await;
                    let request = api.request(Method::POST, "/v1/events").json(&events);
                    let _ = request.send().await;
                }
            });
        }
    }

    /// A live reader that takes all it is sent.
    async fn read(&mut self) {
        let mut ws = live(self.api(), "catch_up").await;
        self.at_work
            .spawn(async move { while let Ok(Some(_)) = ws.next().await {} });
    }

    /// Everybody goes home.
    async fn rest(&mut self) {
        self.at_work.shutdown().await;
    }
}

async fn live(api: &Api, on_lag: &str) -> Ws {
    let mut ws = api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "s", "on_lag": on_lag}))
        .await;
    ws.until("live").await;
    ws
}

fn of(scrape: Option<&Scrape>, series: &str) -> f64 {
    let value = scrape.and_then(|scrape| scrape.get(series));
    value.copied().unwrap_or_default()
}

/// The sum of a metric, whatever its labels.
fn sum(scrape: Option<&Scrape>, metric: &str) -> f64 {
    let of = |(series, _): &(&String, &f64)| series.split('{').next() == Some(metric);
    scrape
        .into_iter()
        .flatten()
        .filter(of)
        .map(|(_, value)| value)
        .sum()
}

fn is_well(scrape: Option<&Scrape>) -> bool {
    of(scrape, "tidewire_tail_up") > 0.0
        && of(scrape, "tidewire_breaker_state{state=\"closed\"}") > 0.0
}

/// Nothing, for three phases; events of each priority are written and read all the while.
pub async fn healthy(scrapes: &mut Scrapes) {
    let mut site = Site::start(&[]).await;
    site.read().await;
    let of = |priority: &str| json!({"topic": "a", "priority": priority});
    site.write(1, &json!(["critical", "high", "normal", "low"].map(of)));
    for _ in 0..3 {
        let stored = |scrape: Option<&Scrape>| sum(scrape, "tidewire_append_events_total") > 100.0;
        scrapes.phase(site.api(), stored).await;
    }
    site.rest().await;
}

/// What part of a priority's events was delivered within so many seconds.
pub fn delivered_within(scrapes: &Scrapes, phase: usize, priority: &str, seconds: &str) -> f64 {
    let metric = "tidewire_delivery_seconds";
    let labels = format!("priority=\"{priority}\",transport=\"websocket\"");
    let within = format!("{metric}_bucket{{{labels},le=\"{seconds}\"}}");
    let all = format!("{metric}_count{{{labels}}}");
    scrapes.growth(phase, &within) / scrapes.growth(phase, &all)
}

pub async fn killed(scrapes: &mut Scrapes) {
    let db = TestDb::new().await;
    let process = Process::start(&db.url, &[]).await;
    let (address, api) = (process.address(), process.api.clone());
    scrapes.phase(&api, |scrape| scrape.is_some()).await;
    process.kill().await;
    scrapes.phase(&api, |scrape| scrape.is_none()).await;
    let _again = Process::start_at(&address, &db.url, &[]).await;
    scrapes.phase(&api, |scrape| scrape.is_some()).await;
}

/// From the cut of the line until the server is well again.
async fn while_cut(
    scrapes: &mut Scrapes,
    site: &mut Site,
    is_so: impl Fn(Option<&Scrape>) -> bool,
) {
    scrapes.phase(site.api(), is_well).await;
    site.proxy.cut();
    scrapes.phase(site.api(), is_so).await;
    site.rest().await;
    site.proxy.restore();
    // The breaker closes once a batch is stored.
    site.write(1, &json!([{"topic": "a"}]));
    scrapes.phase(site.api(), is_well).await;
    site.rest().await;
}

pub async fn cut_off(scrapes: &mut Scrapes) {
    let mut site = Site::start(&[]).await;
    let is_down =
        |scrape: Option<&Scrape>| scrape.is_some() && of(scrape, "tidewire_tail_up") == 0.0;
    while_cut(scrapes, &mut site, is_down).await;
}

const BRITTLE: &[&str] = &["--breaker-failures", "3", "--breaker-recovery-s", "3600"];

pub async fn failing(scrapes: &mut Scrapes) {
    let mut site = Site::start(BRITTLE).await;
    let is_open =
        |scrape: Option<&Scrape>| of(scrape, "tidewire_breaker_state{state=\"open\"}") > 0.0;
    while_cut(scrapes, &mut site, is_open).await;
}

pub async fn unavailable(scrapes: &mut Scrapes) {
    let mut site = Site::start(BRITTLE).await;
    site.write(2, &json!([{"topic": "a"}]));
    let series = "tidewire_append_events_total{priority=\"normal\",result=\"unavailable\"}";
    while_cut(scrapes, &mut site, |scrape| of(scrape, series) > 10.0).await;
}

pub async fn retried(scrapes: &mut Scrapes) {
    // The breaker would spare the database most of it.
    let mut site = Site::start(&["--breaker-failures", "1000"]).await;
    site.write(8, &json!([{"topic": "a"}]));
    while_cut(scrapes, &mut site, |scrape| {
        sum(scrape, "tidewire_retries_total") > 10.0
    })
    .await;
}

pub async fn open_writer(scrapes: &mut Scrapes) {
    let mut site = Site::start(&[]).await;
    let series = "tidewire_watermark_held_seconds";
    scrapes.phase(site.api(), is_well).await;
    let open = site.db.connect().await;
    let begin = "BEGIN; SELECT tidewire.append('a.held')";
    open.batch_execute(begin).await.unwrap();
    // Only what is committed after it is held back.
    site.write(1, &json!([{"topic": "a"}]));
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) >= 1.0)
        .await;
    open.batch_execute("COMMIT").await.unwrap();
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) == 0.0)
        .await;
    site.rest().await;
}

pub async fn held_back(scrapes: &mut Scrapes) {
    let site = Site::start(&[]).await;
    let series = "tidewire_watermark_lag_events";
    scrapes.phase(site.api(), is_well).await;
    let (open, other) = (site.db.connect().await, site.db.connect().await);
    let begin = "BEGIN; SELECT tidewire.append('a.held')";
    open.batch_execute(begin).await.unwrap();
    let many = "INSERT INTO tidewire.events (tenant, topic) SELECT 'dev', 'a' FROM generate_series(1, 10500)";
    other.batch_execute(many).await.unwrap();
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) > 10_000.0)
        .await;
    open.batch_execute("COMMIT").await.unwrap();
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) == 0.0)
        .await;
}

/// More is written than a narrow line takes.
pub async fn overloaded(scrapes: &mut Scrapes) {
    // Batches that the line takes within a second: what takes longer than five is given up, which is another alert.
    let settings = ["--breaker-failures", "1000", "--batch-events-max", "10"];
    let mut site = Site::start(&settings).await;
    let series = "tidewire_append_events_total{priority=\"low\",result=\"shed\"}";
    scrapes.phase(site.api(), is_well).await;
    site.proxy.narrow(20_000);
    let event = json!([{"topic": "a", "priority": "low", "data": "x".repeat(2_000)}]);
    site.write(300, &event);
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) > 10.0)
        .await;
    site.rest().await;
    site.proxy.restore();
    let queue = "tidewire_append_queue_requests{priority=\"low\"}";
    scrapes
        .phase(site.api(), |scrape| {
            scrape.is_some() && of(scrape, queue) == 0.0
        })
        .await;
}

/// Each chunk takes longer than the target of most priorities allows for the whole way.
pub async fn slow(scrapes: &mut Scrapes, priority: &str) {
    let mut site = Site::start(&[]).await;
    site.read().await;
    let series = format!(
        "tidewire_delivery_seconds_count{{priority=\"{priority}\",transport=\"websocket\"}}"
    );
    // In operation: what it knows of the tenant it has read before.
    site.api().append(&json!({"topic": "before"})).await;
    scrapes.phase(site.api(), is_well).await;
    site.proxy.slow(Duration::from_millis(300));
    let event = json!({"topic": "a", "priority": priority});
    site.write(2, &json!(vec![event; 20]));
    scrapes
        .phase(site.api(), |scrape| of(scrape, &series) > 100.0)
        .await;
    site.rest().await;
    site.proxy.restore();
    scrapes.phase(site.api(), is_well).await;
}

pub async fn deaf(scrapes: &mut Scrapes) {
    let db = TestDb::new().await;
    let (proxy, listen_url) = Proxy::before_database(&db.url).await;
    let process = Process::start(&db.url, &["--listen-database-url", &listen_url]).await;
    let series = "tidewire_wake_up_mode{mode=\"polling\"}";
    let listens = |scrape: Option<&Scrape>| scrape.is_some() && of(scrape, series) == 0.0;
    scrapes.phase(&process.api, listens).await;
    proxy.cut();
    scrapes
        .phase(&process.api, |scrape| of(scrape, series) > 0.0)
        .await;
    proxy.restore();
    scrapes.phase(&process.api, listens).await;
}

/// The smallest window.
const SMALL: &[&str] = &["--window-events", "2000", "--window-bytes", "1048576"];

/// More events than the window holds.
async fn with_history(settings: &[&str]) -> Site {
    let site = Site::start(settings).await;
    let many = "INSERT INTO tidewire.events (tenant, topic, subject) SELECT 'dev', 'a', 's-' || n FROM generate_series(1, 5000) AS n";
    site.db.connect().await.batch_execute(many).await.unwrap();
    site
}

/// So many readers want history, each another part of it, while the database is silent.
async fn want_history(
    scrapes: &mut Scrapes,
    readers: usize,
    is_so: impl Fn(Option<&Scrape>) -> bool,
) {
    let mut site = with_history(&[SMALL, &["--breaker-failures", "1000"]].concat()).await;
    let is_read = |scrape: Option<&Scrape>| {
        is_well(scrape) && of(scrape, "tidewire_watermark_lag_events") == 0.0
    };
    scrapes.phase(site.api(), is_read).await;
    site.proxy.hold();
    for number in 0..readers {
        let api = site.api().clone();
        site.at_work.spawn(async move {
            let mut ticks = interval(TICK);
            let query = format!("after=earliest&subjects=s-{number}");
            // Whoever is refused comes again.
            loop {
                ticks.tick().await;
                let Ok(stream) = api.sse(&query, None).await else {
                    continue;
                };
                let mut bytes = stream.response.bytes_stream();
                while let Some(Ok(_)) = bytes.next().await {}
            }
        });
    }
    scrapes.phase(site.api(), is_so).await;
    site.rest().await;
    site.proxy.restore();
    let is_over = |scrape: Option<&Scrape>| {
        is_well(scrape)
            && of(scrape, "tidewire_readers_behind") + of(scrape, "tidewire_pool_waiting") == 0.0
    };
    scrapes.phase(site.api(), is_over).await;
}

pub async fn crowd(scrapes: &mut Scrapes) {
    want_history(scrapes, 1_200, |scrape| {
        of(scrape, "tidewire_readers_behind") > 1_000.0
    })
    .await;
}

pub async fn hanging(scrapes: &mut Scrapes) {
    want_history(scrapes, 40, |scrape| {
        of(scrape, "tidewire_pool_waiting") > 10.0
    })
    .await;
}

pub async fn many_sockets(scrapes: &mut Scrapes) {
    let site = Site::start(&["--connections-max", "20"]).await;
    scrapes.phase(site.api(), is_well).await;
    let mut sockets = Vec::new();
    while sockets.len() < 15 {
        sockets.push(site.api().ws().await);
    }
    let open = |scrape: Option<&Scrape>| sum(scrape, "tidewire_connections");
    scrapes
        .phase(site.api(), |scrape| open(scrape) > 14.0)
        .await;
    drop(sockets);
    scrapes
        .phase(site.api(), |scrape| scrape.is_some() && open(scrape) == 0.0)
        .await;
}

/// Live readers that take a frame a second, and others that want what the window has no more.
pub async fn outrun(scrapes: &mut Scrapes) {
    let mut site = with_history(SMALL).await;
    scrapes.phase(site.api(), is_well).await;
    for _ in 0..4 {
        let mut ws = live(site.api(), "skip").await;
        site.at_work.spawn(async move {
            let mut ticks = interval(Duration::from_millis(500));
            while let Ok(Some(_)) = ws.next().await {
                ticks.tick().await;
            }
        });
        let api = site.api().clone();
        site.at_work.spawn(async move {
            let mut ticks = interval(TICK * 4);
            loop {
                ticks.tick().await;
                let page = api.request(Method::GET, "/v1/events?after=earliest");
                let _ = page.send().await;
            }
        });
    }
    let event = json!({"topic": "a", "data": "x".repeat(100_000)});
    site.write(2, &json!(vec![event; 5]));
    scrapes
        .phase(site.api(), |scrape| {
            sum(scrape, "tidewire_lagged_total") >= 8.0
        })
        .await;
    site.rest().await;
    scrapes.phase(site.api(), is_well).await;
}
