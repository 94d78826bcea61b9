//! A storm: a crowd of readers whose connections are cut again and again while events come, and what that costs them.
//!
//! # Invariants
//! - One writer numbers the events, and sends what was not answered again under the same ids: the log holds every number once, in
//!   order, so a reader knows by itself what it has missed or seen twice.
//! - A reader whose connection is cut comes back at once with the cursor of what it has seen; one that is refused comes back later.
//! - What is cut are connections of its own. Nothing else is ever ended here.

mod reader;
mod report;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::flaw::Flaw;
use super::live::Wire;
use super::probe::Probe;
use super::report::Figures;
use super::run::Plan;
use super::{Depth, Load};
use crate::client::{Client, pause_until};
use crate::tasks::Tasks;

use reader::Seen;
pub use report::Drilled;

/// How long readers may take in the end to get what is left.
const REST_MAX: Duration = Duration::from_secs(15);
/// How long the last appends, and erasing, may take.
const CLEANUP_MAX: Duration = Duration::from_secs(30);

/// What is drilled.
#[derive(Debug, Clone)]
pub struct Drill {
    /// The server and a credential that may read and write `check.*`.
    pub client: Client,
    /// How they read.
    pub wire: Wire,
    /// How many read.
    pub clients: usize,
    /// How often all connections are cut.
    pub kill_every: Duration,
    /// How long it goes on.
    pub duration: Duration,
    /// Events a second.
    pub rate: u32,
}

/// What writer and readers share.
#[derive(Debug)]
struct Storm {
    topic: String,
    /// Events that were acknowledged: numbers below it are in the log.
    acknowledged: AtomicU64,
    /// When the connections were cut last.
    cut: watch::Receiver<Option<Instant>>,
    /// How many events there are, once there are no more.
    total: watch::Receiver<Option<u64>>,
}

impl Storm {
    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// Runs it; `cutting` is called each time before the connections are cut.
///
/// # Errors
/// If the log's end cannot be found out, which is where the readers begin.
pub async fn run(drill: &Drill, cutting: &mut (dyn FnMut(u32) + Send)) -> Result<Drilled, Flaw> {
    let plan = Plan {
        load: Load::of(Depth::Quick),
        ..Plan::new(Depth::Quick, drill.client.clone())
    };
    let probe = Arc::new(Probe::new(&plan));
    let from = probe.end().await?;
    probe.prepare().await?;
    let (cut, cut_at) = watch::channel(None);
    let (total, total_is) = watch::channel(None);
    let storm = Arc::new(Storm {
        topic: probe.topic(writer::NAME),
        acknowledged: AtomicU64::new(0),
        cut: cut_at,
        total: total_is,
    });
    let tasks = Tasks::new();
    let (sender, mut ended) = mpsc::channel(drill.clients.max(1));
    for _ in 0..drill.clients {
        let (drill, storm, from) = (drill.clone(), Arc::clone(&storm), from.clone());
        let sender = sender.clone();
        tasks.spawn(async move {
            let seen = reader::run(&drill, &storm, from).await;
            let _ = sender.send(seen).await;
        });
    }
    drop(sender);
    let began = Instant::now();
    let stop = began + drill.duration;
    let cuts = async {
        let mut count = 0_u32;
        let mut next = began + drill.kill_every;
        while next < stop {
            pause_until(next).await;
            count = count.saturating_add(1);
            cutting(count);
            cut.send_replace(Some(Instant::now()));
            next += drill.kill_every;
        }
        count
    };
    let writing = writer::run(&probe, &storm, drill.rate, stop, stop + CLEANUP_MAX);
    let (written, cuts) = futures_util::future::join(writing, cuts).await;
    total.send_replace(Some(storm.acknowledged()));
    let mut seen = Vec::with_capacity(drill.clients);
    while let Some(one) = ended.recv().await {
        seen.push(one);
    }
    tasks.stop(REST_MAX).await;
    let mut figures = Figures::new();
    let cleanup = probe.clean_up(&mut figures);
    let is_erased = matches!(tokio::time::timeout(CLEANUP_MAX, cleanup).await, Ok(Ok(())));
    let mut drilled = Drilled::of(drill, probe.run(), storm.acknowledged(), &seen);
    drilled.cuts = cuts;
    drilled.is_erased = is_erased;
    drilled.write_retries = written.retries;
    drilled.unanswered = written.unanswered;
    Ok(drilled.judged())
}
