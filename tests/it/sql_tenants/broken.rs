//! The attempts find what they are for: a view that is broken on purpose is caught.

use super::fixture::Tenants;
use super::looking::LOOKING;

/// How many of the attempts at looking show the other tenant's word.
async fn leaks_with(view: &str) -> usize {
    let tenants = Tenants::new().await;
    tenants.owner.batch_execute(view).await.unwrap();
    let reader = tenants.login("reader", false).await;
    let mut leaks = 0;
    for (_, statements) in LOOKING {
        leaks += usize::from(reader.attempt(statements).await.leaks());
    }
    leaks
}

/// The view as it is, but for what `change` takes out.
fn broken(change: &[(&str, &str)]) -> String {
    let mut view = include_str!("../../../sql/views/my_events.sql").to_owned();
    for (from, to) in change {
        assert!(view.contains(from), "{from}");
        view = view.replace(from, to);
    }
    view
}

#[tokio::test]
async fn a_view_without_the_tenant_is_caught() {
    let view = broken(&[("e.tenant = (SELECT tidewire.current_tenant())", "true")]);
    assert!(leaks_with(&view).await > 10);
}

#[tokio::test]
async fn a_view_without_the_barrier_is_caught() {
    // CREATE OR REPLACE would keep the option.
    let view = broken(&[(
        "WITH (security_barrier) AS",
        "WITH (security_barrier = false) AS",
    )]);
    assert!(leaks_with(&view).await > 0);
}

#[tokio::test]
async fn a_view_that_shows_the_logs_own_topics_is_caught() {
    let view = broken(&[("(SELECT tidewire.sees_reserved())", "true")]);
    assert!(leaks_with(&view).await > 0);
}

#[tokio::test]
async fn a_setting_as_the_tenant_is_caught() {
    let view = broken(&[(
        "(SELECT tidewire.current_tenant())",
        "coalesce(nullif(current_setting('tidewire.tenant', true), 'tenant-other'), 'tenant-s3ntinel')",
    )]);
    assert!(leaks_with(&view).await > 0);
}
