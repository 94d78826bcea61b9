//! What an analyst's query costs: conditions pass the barrier as far as to keep chunks and other tenants' rows unread.

use super::fixture::Tenants;
use super::session::Session;

async fn plan(session: &Session, query: &str) -> String {
    let plan = session
        .run(&format!("EXPLAIN (ANALYZE, TIMING off) {query}"))
        .await;
    assert_eq!(plan.state, "ok", "{query}: {}", plan.said);
    plan.said
}

/// Chunks that a plan has read rows of, or tried to.
fn chunks(plan: &str) -> usize {
    let scanned = plan.lines().filter(|line| {
        line.contains(" Scan ") && line.contains(" on _hyper_") && !line.contains("never executed")
    });
    let mut names: Vec<&str> = scanned
        .filter_map(|line| line.split(" on ").nth(1)?.split(' ').next())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

#[tokio::test]
async fn conditions_on_time_place_and_topic_pass_the_barrier() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    let all = plan(&reader, "SELECT * FROM tidewire.my_events").await;
    assert!(chunks(&all) >= 3, "{all}");
    let by_time = plan(
        &reader,
        "SELECT * FROM tidewire.my_events WHERE recorded_at < now() - interval '36 hours'",
    )
    .await;
    assert!(chunks(&by_time) < chunks(&all), "{by_time}");
    let by_constant = plan(
        &reader,
        "SELECT * FROM tidewire.my_events WHERE recorded_at < '2001-01-01'",
    )
    .await;
    assert_eq!(chunks(&by_constant), 0, "{by_constant}");
    let by_seq = plan(
        &reader,
        "SELECT * FROM tidewire.my_events WHERE seq BETWEEN 100 AND 200",
    )
    .await;
    assert!(
        by_seq.contains("Index Cond: ") && by_seq.contains("(seq >= 100)"),
        "{by_seq}"
    );
    let own = plan(
        &reader,
        "SELECT * FROM tidewire.my_events WHERE topic = 'mine.stage.1'",
    )
    .await;
    // In the scan itself, not above it.
    assert!(own.contains("topic = 'mine.stage.1'"), "{own}");
    assert!(!own.contains("Subquery Scan"), "{own}");
    // What could tell what it is given stays above the barrier.
    let above = plan(
        &reader,
        "SELECT * FROM tidewire.my_events WHERE data @> '{\"mine\": 7}'",
    )
    .await;
    assert!(above.contains("Subquery Scan"), "{above}");
}

/// The tenant is asked for once a query, not once a row.
#[tokio::test]
async fn the_tenant_is_asked_for_once() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    let plan = plan(&reader, "SELECT count(*) FROM tidewire.my_events").await;
    assert!(
        plan.contains("InitPlan") && !plan.contains("current_tenant()"),
        "{plan}"
    );
}
