//! Consumers: somebody paused one, nobody can run it, or much lies before it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{Scrape, Scrapes, Site, is_well, of};
use crate::support::eventually;

const PAUSED: &str = "tidewire_consumer_paused{consumer=\"watch\"}";
const ACTIVE: &str = "tidewire_consumer_active{consumer=\"watch\"}";
const LAG: &str = "tidewire_consumer_lag_events{consumer=\"watch\"}";

async fn act(site: &Site, action: &str) {
    let path = format!("/v1/admin/consumers/watch/{action}");
    let answer = site.api().request(Method::POST, &path).send().await;
    assert!(answer.unwrap().status().is_success(), "{action}");
}

fn runs(scrape: Option<&Scrape>) -> bool {
    is_well(scrape) && of(scrape, ACTIVE) > 0.0
}

pub async fn paused(scrapes: &mut Scrapes) {
    let site = Site::start(&[]).await;
    scrapes.phase(site.api(), is_well).await;
    act(&site, "pause").await;
    scrapes
        .phase(site.api(), |scrape| of(scrape, PAUSED) > 0.0)
        .await;
    act(&site, "resume").await;
    scrapes
        .phase(site.api(), |scrape| {
            scrape.is_some() && of(scrape, PAUSED) == 0.0
        })
        .await;
}

/// Somebody else holds the lock by which a server knows that it is its turn.
pub async fn not_run(scrapes: &mut Scrapes) {
    let site = Site::start(&[]).await;
    scrapes.phase(site.api(), runs).await;
    let (holder, other) = (site.db.connect().await, site.db.connect().await);
    let lock = holder.batch_execute("SELECT pg_advisory_lock(1953064040, hashtext('watch'))");
    let ending = eventually(Duration::from_secs(30), || async {
        // Once it waits for its turn, which then is the next.
        let end = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity AS a
                    WHERE a.datname = current_database() AND a.application_name = 'tidewire watch'
                      AND EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.database = a.datid
                                     AND NOT l.granted AND l.classid = 1953064040)";
        let ended: i64 = other.query_one(end, &[]).await.unwrap().get(0);
        (ended > 0).then_some(()).ok_or(ended)
    });
    let (locked, ()) = tokio::join!(lock, ending);
    locked.unwrap();
    let is_not_run = |scrape: Option<&Scrape>| is_well(scrape) && of(scrape, ACTIVE) == 0.0;
    scrapes.phase(site.api(), is_not_run).await;
    drop(holder);
    scrapes.phase(site.api(), runs).await;
}

/// It is paused while much is written.
pub async fn behind(scrapes: &mut Scrapes) {
    let site = Site::start(&[]).await;
    scrapes.phase(site.api(), runs).await;
    act(&site, "pause").await;
    let events = json!(vec![json!({"topic": "a"}); 1_000]);
    for _ in 0..11 {
        site.api().append(&events).await;
    }
    let is_behind = |scrape: Option<&Scrape>| of(scrape, LAG) > 10_000.0;
    scrapes.phase(site.api(), is_behind).await;
    act(&site, "resume").await;
    let has_come = |scrape: Option<&Scrape>| runs(scrape) && of(scrape, LAG) == 0.0;
    scrapes.phase(site.api(), has_come).await;
}
