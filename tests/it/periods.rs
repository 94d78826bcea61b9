//! Periods that servers and functions of the database both keep: one number for both.

use tidewire::access::{ledger, news, revocations, revoked, tenants};
use tokio_postgres::Client;

use crate::support::TestDb;

/// The periods in a function's text, in their order.
async fn periods(client: &Client, function: &str) -> Vec<String> {
    let text = format!("SELECT pg_get_functiondef('tidewire.{function}()'::regprocedure)");
    let text: String = client.query_one(&text, &[]).await.unwrap().get(0);
    let rest = text.split("interval '").skip(1);
    rest.map(|rest| rest.split_once('\'').unwrap().0.to_owned())
        .collect()
}

#[tokio::test]
async fn the_database_keeps_the_periods_that_servers_keep() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let beyond = ("hours", revoked::BEYOND_HOURS);
    for (function, kept) in [
        ("announce_credential_change", [beyond, beyond]),
        (
            "record_credential",
            [
                ("days", revocations::KEPT_DAYS),
                ("days", ledger::KEPT_DAYS),
            ],
        ),
    ] {
        let said = periods(&client, function).await;
        assert_eq!(said.len(), kept.len(), "{function}: {said:?}");
        for (said, (unit, count)) in said.iter().zip(kept) {
            let same = format!(
                "SELECT interval '{said}' IS NOT DISTINCT FROM make_interval({unit} => $1)"
            );
            let same = client.query_one(&same, &[&count]).await.unwrap();
            assert!(same.get::<_, bool>(0), "{function}: {said}, {count} {unit}");
        }
    }
}

#[test]
fn no_statement_says_a_period_itself() {
    for list in [
        ledger::STATEMENTS,
        news::STATEMENTS,
        revocations::STATEMENTS,
        tenants::STATEMENTS,
    ] {
        for statement in list {
            assert!(!statement.contains("interval '"), "{statement}");
        }
    }
}
