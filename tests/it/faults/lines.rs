//! Lines to the database that are slow, narrow, reset, cut and silent, under load and before a reader that stays.

use std::time::Duration;

use tokio::task::JoinSet;

use super::load::Load;
use super::witness::Witness;
use crate::metrics::text;
use crate::support::{Proxy, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(40);

/// Under load through a proxy: does this to the line, and judges what came of it.
async fn under_load(settings: &[&str], fault: impl AsyncFnOnce(&Proxy, &Server, &Load, &Witness)) {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, settings).await;
    let witness = Witness::live(&server.api).await;
    let load = Load::start(&server.api, &db.url);
    load.goes_on(100).await;
    fault(&proxy, &server, &load, &witness).await;
    proxy.restore();
    load.goes_on(100).await;
    load.judge().await;
    witness.judge(&db.url).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_latency_loses_nothing_and_keeps_its_readers() {
    under_load(&[], async |proxy, server, load, _| {
        let before = text(&server.api).await;
        proxy.slow(Duration::from_millis(300));
        load.goes_on(60).await;
        // Slow is not away.
        let told = text(&server.api).await;
        assert!(
            told.contains("\ntidewire_breaker_opened_total 0\n"),
            "{told}"
        );
        let batches = average_since(&before, &told);
        assert!(batches > 0.3, "{batches}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_line_loses_nothing_and_keeps_its_readers() {
    under_load(&[], async |proxy, server, load, _| {
        let before = text(&server.api).await;
        proxy.narrow(3_000);
        load.goes_on(40).await;
        let batches = average_since(&before, &text(&server.api).await);
        assert!(batches > 0.3, "{batches}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_again_and_again_lose_nothing_and_keep_readers() {
    under_load(&[], async |proxy, server, load, _| {
        for _ in 0..8 {
            proxy.reset();
            load.goes_on(20).await;
        }
        let told = text(&server.api).await;
        let lost = value(&told, "tidewire_retries_total{cause=\"lost\"}");
        assert!(lost > 0.0, "nobody has met a reset: {told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_for_long_opens_the_breaker_and_its_readers_stay() {
    opens_and_closes(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_line_opens_the_breaker_and_its_readers_stay() {
    opens_and_closes(Proxy::hold).await;
}

/// Closed, open, half-open, closed: seen in the metrics, and told to the reader.
async fn opens_and_closes(break_line: fn(&Proxy)) {
    // Nothing ends the hour but that the tail hears of the database.
    let settings = ["--breaker-failures", "3", "--breaker-recovery-s", "3600"];
    under_load(&settings, async |proxy, server, load, witness| {
        let mut states = server.app.appender.breaker().states();
        let mut seen = vec![states.borrow_and_update().as_str()];
        let mut watching = JoinSet::new();
        watching.spawn(async move {
            while seen.len() < 4 {
                states.changed().await.unwrap();
                let now = states.borrow_and_update().as_str();
                // A probe's place that is free again is told as well.
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            seen
        });
        is_in(server, "closed").await;
        break_line(proxy);
        is_in(server, "open").await;
        witness.is_told("database-away").await;
        load.is_refused().await;
        // So slow that a probe takes its time: half-open is seen by who looks.
        proxy.slow(Duration::from_millis(50));
        is_in(server, "half_open").await;
        witness.is_told("database-back").await;
        is_in(server, "closed").await;
        let seen = watching.join_next().await.unwrap().unwrap();
        assert_eq!(seen, ["closed", "open", "half_open", "closed"]);
        let shown = server.api.get("/v1/status").await;
        assert_eq!(shown["breaker"]["state"], "closed", "{shown}");
    })
    .await;
}

/// Waits until the metrics say so of the breaker.
async fn is_in(server: &Server, state: &str) {
    eventually(PATIENCE, || async {
        let told = text(&server.api).await;
        let wanted = format!("tidewire_breaker_state{{state=\"{state}\"}}");
        (value(&told, &wanted) > 0.0).then_some(()).ok_or(wanted)
    })
    .await;
}

fn value(metrics: &str, series: &str) -> f64 {
    let of = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
    metrics.lines().find_map(of).unwrap_or_default()
}

/// How many seconds a batch has taken since then, on the average.
fn average_since(before: &str, now: &str) -> f64 {
    let [sum, count] = ["sum", "count"].map(|what| {
        let series = format!("tidewire_batch_seconds_{what}");
        value(now, &series) - value(before, &series)
    });
    sum / count
}
