//! Whether events are delivered within the targets of their priority, and how many can be stored.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::flaw::Flaw;
use super::list::Depth;
use super::live::{Live, Wire};
use super::probe::Probe;
use super::report::Figures;
use super::timing::Spread;

/// How much load is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Events with which latency is measured, of all priorities together.
    pub samples: usize,
    /// Between two of them.
    pub every: Duration,
    /// Events with which throughput is measured.
    pub events: usize,
}

impl Load {
    /// What a depth takes: 15 s, or 45 s, at 80 events a second.
    #[must_use]
    pub const fn of(depth: Depth) -> Self {
        let (samples, events) = match depth {
            Depth::Quick | Depth::Performance => (1_200, 10_000),
            Depth::Comprehensive => (3_600, 20_000),
        };
        Self {
            samples,
            every: Duration::from_micros(12_500),
            events,
        }
    }
}

/// A priority, the percentile that counts, and what it may be.
struct Target {
    priority: &'static str,
    percentile: &'static str,
    ms: f64,
}

/// From receipt to delivery.
const TARGETS: [Target; 4] = [
    Target {
        priority: "critical",
        percentile: "p95",
        ms: 50.0,
    },
    Target {
        priority: "high",
        percentile: "p95",
        ms: 50.0,
    },
    Target {
        priority: "normal",
        percentile: "p99",
        ms: 100.0,
    },
    Target {
        priority: "low",
        percentile: "p99",
        ms: 500.0,
    },
];

/// How long the last event may take.
const LAST_MAX: Duration = Duration::from_secs(10);
const NAME: &str = "latency";
/// Events of one array of the check of throughput, and arrays that are under way at once.
const BATCH: usize = 500;
const AT_ONCE: usize = 4;

/// From before the request is sent until a WebSocket has the event: more than the server's own part.
pub(super) async fn latency(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let from = probe.end().await?;
    let topic = probe.topic(NAME);
    let mut reader = Live::open(Wire::WebSocket, &probe.client, &topic, &from).await?;
    let mut ticks = interval(probe.load.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut writing) = (HashMap::new(), FuturesUnordered::new());
    let mut times: [Vec<Duration>; 4] = Default::default();
    let (mut next, mut left) = (0_usize, probe.load.samples);
    let mut last = Instant::now() + LAST_MAX;
    while left > 0 {
        tokio::select! {
            _ = ticks.tick(), if next < probe.load.samples => {
                let class = next % TARGETS.len();
                sent.insert(probe.id(NAME, next), (class, Instant::now()));
                writing.push(write(probe, next, class));
                next = next.saturating_add(1);
                last = Instant::now() + LAST_MAX;
            }
            Some(written) = writing.next(), if !writing.is_empty() => written?,
            came = reader.next() => for event in came?.0 {
                let id = event.get("id").and_then(Value::as_str).unwrap_or_default();
                if let Some((class, at)) = sent.remove(id) {
                    left = left.saturating_sub(1);
                    times.get_mut(class).into_iter().for_each(|times| times.push(at.elapsed()));
                }
            },
            () = tokio::time::sleep_until(last) => return Err(Flaw::failed(
                format!("{left} of {} events did not come within {} s", probe.load.samples, LAST_MAX.as_secs()),
                "GET /v1/status says whether the watermark is held back, and by whom.",
            )),
        }
    }
    verdict(times, figures)
}

async fn write(probe: &Probe, n: usize, class: usize) -> Result<(), Flaw> {
    let mut event = probe.event(NAME, n);
    if let (Some(fields), Some(target)) = (event.as_object_mut(), TARGETS.get(class)) {
        fields.insert("priority".to_owned(), json!(target.priority));
    }
    probe.append(&[event]).await.map(drop)
}

fn verdict(times: [Vec<Duration>; 4], figures: &mut Figures) -> Result<(), Flaw> {
    let mut late = Vec::new();
    for (target, times) in TARGETS.iter().zip(times) {
        let spread = Spread::of(times);
        let reached = match target.percentile {
            "p95" => spread.p95_ms,
            _ => spread.p99_ms,
        };
        let mut figure = json!(spread);
        if let Some(fields) = figure.as_object_mut() {
            fields.insert(format!("target_{}_ms", target.percentile), json!(target.ms));
        }
        figures.insert(target.priority.to_owned(), figure);
        if reached >= target.ms {
            let Target {
                priority,
                percentile,
                ms,
            } = target;
            late.push(format!(
                "{priority} {percentile} {reached} ms, target below {ms} ms"
            ));
        }
    }
    if late.is_empty() {
        return Ok(());
    }
    Err(Flaw::failed(
        late.join("; "),
        "Is the machine or its disk busy, or the network to the server or from it to the database slow? /metrics shows where time goes (tidewire_*_seconds).",
    ))
}

/// Arrays, several at once; a figure, without a target.
pub(super) async fn throughput(probe: &Probe, figures: &mut Figures) -> Result<(), Flaw> {
    let began = Instant::now();
    let batches = probe.load.events.div_ceil(BATCH);
    let mut writing = futures_util::stream::iter(0..batches)
        .map(|batch| async move {
            let first = batch.saturating_mul(BATCH);
            let events = first..first.saturating_add(BATCH).min(probe.load.events);
            let events: Vec<Value> = events.map(|n| probe.event("throughput", n)).collect();
            probe.append(&events).await
        })
        .buffer_unordered(AT_ONCE);
    while let Some(written) = writing.next().await {
        written?;
    }
    let took = began.elapsed().as_secs_f64();
    let events = u32::try_from(probe.load.events).map_or(0.0, f64::from);
    figures.insert("events".to_owned(), json!(probe.load.events));
    figures.insert(
        "per_s".to_owned(),
        json!((events / took.max(0.001)).round()),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_priority_has_its_target() {
        let times = |ms| vec![Duration::from_millis(ms); 100];
        let good = [times(49), times(49), times(99), times(499)];
        let mut figures = Figures::new();
        assert_eq!(verdict(good.clone(), &mut figures), Ok(()));
        assert_eq!(figures["critical"]["target_p95_ms"], 50.0);
        for (class, ms) in [(0, 50), (1, 50), (2, 100), (3, 500)] {
            let mut late = good.clone();
            late[class] = times(ms);
            let Err(Flaw::Failed { cause, .. }) = verdict(late, &mut figures) else {
                panic!("{class}")
            };
            assert!(cause.starts_with(TARGETS[class].priority), "{cause}");
        }
        // Some that are late are no failure, as the percentile has it.
        let mut few = good;
        few[0]
            .iter_mut()
            .take(5)
            .for_each(|time| *time = Duration::from_secs(1));
        assert_eq!(verdict(few, &mut figures), Ok(()));
    }
}
