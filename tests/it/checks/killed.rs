//! Runs that are cut short: what they have written is erased, or goes by retention.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::outside::{left, server};
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Process, TestDb, eventually, signal};

const PATIENCE: Duration = Duration::from_secs(30);

/// The longest run there is.
fn check(api: &Api) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["check", "comprehensive", "--json", "--url", &api.url]);
    command.args(["--token", &token::token("acme")]);
    command.args(["--other-token", &token::token("beta")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn until_written(db: &TestDb) {
    eventually(PATIENCE, || async {
        let events = left(db).await;
        (events > 100).then_some(()).ok_or(events)
    })
    .await;
}

/// Tenants that have a rule of a day, and for what.
async fn rules(db: &TestDb) -> Vec<(String, String)> {
    let rules = "SELECT tenant, pattern FROM tidewire.retention_rules WHERE days = 1 ORDER BY tenant, pattern";
    let rows = db.connect().await.query(rules, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn named(rules: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(tenant, pattern): &(&str, &str)| ((*tenant).to_owned(), (*pattern).to_owned());
    rules.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_interrupted_erases_what_it_has_written() {
    let (db, server) = server().await;
    let checking = check(&server.api);
    let pid = checking.id().unwrap().to_string();
    until_written(&db).await;
    assert!(signal::send("-INT", &[&pid]).await.success());
    let output = checking.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let causes = checks.iter().filter_map(|one| one["cause"].as_str());
    let interrupted = causes.filter(|cause| cause.contains("interrupted"));
    assert!(interrupted.count() > 1, "{report:#}");
    let last = checks.last().unwrap();
    assert_eq!(
        (&last["name"], &last["outcome"]),
        (&json!("cleanup"), &json!("passed")),
        "{report:#}"
    );
    assert_eq!((left(&db).await, rules(&db).await), (0, vec![]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_check_that_is_killed_has_written_expires() {
    let (db, server) = server().await;
    // Of a rule of their own nothing is changed.
    let beta = server.api.with_token(&token::token("beta"));
    let own = beta.request(Method::PUT, "/v1/retention/check.*");
    let own = own.json(&json!({"days": 9})).send().await.unwrap();
    assert_eq!(own.status(), 200);
    let mut checking = check(&server.api);
    until_written(&db).await;
    checking.kill().await.unwrap();
    assert!(left(&db).await > 0);
    assert_eq!(rules(&db).await, named(&[("acme", "check.*")]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_is_killed_while_it_checks_itself_has_written_expires() {
    let db = TestDb::new().await;
    let operated = [WITH_TOKENS, &["--operator-tenant", "operators"]].concat();
    let process = Process::start(&db.url, &operated).await;
    let operator = process.api.with_token(&token::token("operators"));
    let mut asking = JoinSet::new();
    asking.spawn(async move {
        let request = operator.request(Method::POST, "/v1/validate");
        request.json(&json!({"type": "comprehensive"})).send().await
    });
    until_written(&db).await;
    process.kill().await;
    assert!(asking.join_next().await.unwrap().unwrap().is_err());
    assert!(left(&db).await > 0);
    let reserved = named(&[("tidewire-check", "*"), ("tidewire-check-other", "*")]);
    assert_eq!(rules(&db).await, reserved);
    // Else what their log says of itself would be kept for ever.
    let own_log = "SELECT tenant, days FROM tidewire.retention_rules WHERE pattern = 'tidewire.*' ORDER BY tenant";
    let rows = db.connect().await.query(own_log, &[]).await.unwrap();
    let own_log: Vec<(String, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let reserved = ["tidewire-check", "tidewire-check-other"];
    assert_eq!(own_log, reserved.map(|tenant| (tenant.to_owned(), 365)));
}
