//! What becomes of sessions that take nothing, and of consumers that somebody stops.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use tokio::time::interval;

use super::{Scrape, Scrapes, Site, is_well, of, sum};

/// Sockets that take nothing of much, again and again new ones.
pub async fn evicted(scrapes: &mut Scrapes) {
    let mut site = Site::start(&["--session-bytes", "16777216"]).await;
    scrapes.phase(site.api(), is_well).await;
    let data = "x".repeat(200_000);
    site.write(2, &json!([{"topic": "big", "data": data}]));
    let api = site.api().clone();
    site.at_work.spawn(async move {
        let (mut ticks, mut stuck) = (interval(Duration::from_millis(100)), VecDeque::new());
        loop {
            ticks.tick().await;
            // Or there is no room for it.
            if let Ok(mut ws) = api.try_ws().await {
                ws.try_send(json!({"type": "subscribe", "id": "s", "after": "earliest"}))
                    .await;
                stuck.push_back(ws);
            }
            if stuck.len() > 60 {
                stuck.pop_front();
            }
        }
    });
    let series = "tidewire_sessions_evicted_total{cause=\"slow\"}";
    scrapes
        .phase(site.api(), |scrape| of(scrape, series) > 3.0)
        .await;
    site.rest().await;
    let open = |scrape: Option<&Scrape>| sum(scrape, "tidewire_connections");
    scrapes
        .phase(site.api(), |scrape| scrape.is_some() && open(scrape) == 0.0)
        .await;
}
