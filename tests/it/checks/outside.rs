//! The checks as a library, from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tidewire::check::{self, Depth, Load, Outcome, Plan, Progress, Report};
use tidewire::client::{Client, Secret};

use crate::support::token::{self, WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb};

pub fn client(api: &Api, token: &str) -> Client {
    Client::new(&api.url, Some(&Secret::new(token))).unwrap()
}

/// With a credential of each of two tenants.
pub fn plan(api: &Api, depth: Depth) -> Plan {
    Plan {
        other: Some(client(api, &token::token("beta"))),
        ..Plan::new(depth, client(api, &token::token("acme")))
    }
}

pub async fn run(plan: &Plan) -> Report {
    check::run(plan, &mut |_| {}).await
}

fn outcomes(report: &Report) -> BTreeMap<&str, Outcome> {
    report
        .checks
        .iter()
        .map(|one| (one.name.as_str(), one.outcome))
        .collect()
}

pub fn failed(report: &Report) -> BTreeMap<&str, &str> {
    let failed = report
        .checks
        .iter()
        .filter(|one| one.outcome == Outcome::Failed);
    failed
        .map(|one| (one.name.as_str(), one.cause.as_deref().unwrap()))
        .collect()
}

pub async fn server() -> (TestDb, Server) {
    let db = TestDb::new().await;
    let mut arguments = WITH_TOKENS.to_vec();
    arguments.extend(["--operator-tenant", "acme"]);
    let server = Server::start_with(&db.url, &arguments).await;
    (db, server)
}

/// Events whose content is still there.
pub async fn left(db: &TestDb) -> i64 {
    let count = "SELECT count(*) FROM tidewire.events WHERE topic LIKE 'check.%' AND (data IS NOT NULL OR subject IS NOT NULL)";
    db.connect()
        .await
        .query_one(count, &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_well_passes_and_nothing_is_left_of_it() {
    let (db, server) = server().await;
    let mut told = Vec::new();
    let report = check::run(&plan(&server.api, Depth::Quick), &mut |progress| {
        told.push(match progress {
            Progress::Begun { name, .. } => format!("begun {name}"),
            Progress::Ended { finding } => format!("ended {}", finding.name),
        });
    })
    .await;
    let text: Vec<String> = report.checks.iter().map(ToString::to_string).collect();
    assert!(report.passed, "{}", text.join("\n"));
    assert_eq!(
        (report.counts.failed, report.counts.skipped),
        (0, 0),
        "{}",
        text.join("\n")
    );
    assert!(report.counts.passed >= 20, "{report}");
    assert!(report.took_ms <= 10_000, "{report}");
    assert_eq!(report.tenant, "acme");
    assert_eq!(told.len(), report.checks.len() * 2);
    assert_eq!(told.last().unwrap(), "ended cleanup");
    assert_eq!(left(&db).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_checked_is_said() {
    let (db, server) = server().await;
    let mut narrow = claims("gamma");
    narrow.role = tidewire::access::Role::Agent;
    (narrow.read, narrow.write) = (vec!["check.*".into()], vec!["check.*".into()]);
    let report = run(&Plan::new(
        Depth::Quick,
        client(&server.api, &issue(&narrow)),
    ))
    .await;
    assert_eq!(failed(&report), BTreeMap::new());
    let skipped: Vec<_> = report
        .checks
        .iter()
        .filter(|one| one.outcome == Outcome::Skipped)
        .collect();
    let names: Vec<_> = skipped.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "reliability/breaker",
            "reliability/breaker-reset",
            "isolation/tenants",
            "cleanup"
        ]
    );
    assert!(skipped.iter().all(|one| one.cause.is_some()));
    assert!(left(&db).await > 0, "it may not erase");
    // Both of one tenant: that is no check of isolation.
    let mut same = plan(&server.api, Depth::Quick);
    same.other = Some(client(&server.api, &token::token("acme")));
    let report = run(&same).await;
    assert_eq!(outcomes(&report)["isolation/tenants"], Outcome::Skipped);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_measured_by_priority() {
    let (_db, server) = server().await;
    let mut plan = plan(&server.api, Depth::Performance);
    plan.load = Load {
        samples: 80,
        every: Duration::from_millis(10),
        events: 1_000,
    };
    let report = run(&plan).await;
    let names: Vec<_> = report.checks.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "integrity/digests",
            "performance/latency",
            "performance/throughput",
            "cleanup"
        ]
    );
    let latency = &report.checks[1];
    for priority in ["critical", "high", "normal", "low"] {
        let figure = &latency.figures[priority];
        assert_eq!(figure["count"], 20, "{latency}");
        assert!(figure["p50_ms"].as_f64().unwrap() > 0.0, "{latency}");
    }
    // Whether the machine is fast enough is not this test's: that the verdict is that of the figures is.
    let late = |priority: &str, percentile: &str, target: f64| {
        latency.figures[priority][percentile].as_f64().unwrap() >= target
    };
    let is_late = late("critical", "p95_ms", 50.0)
        || late("high", "p95_ms", 50.0)
        || late("normal", "p99_ms", 100.0)
        || late("low", "p99_ms", 500.0);
    assert_eq!(latency.outcome == Outcome::Failed, is_late, "{latency}");
    assert!(
        report.checks[2].figures["per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0)
    );
    assert!(matches!(latency.figures["low"], Value::Object(_)));
    server.stop().await;
}

/// All checks there are, with less load than by default; the only one that measures the machine may say that it is slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_comprehensive_run_checks_everything_and_leaves_nothing() {
    let (db, server) = server().await;
    let mut plan = plan(&server.api, Depth::Comprehensive);
    plan.load = Load {
        samples: 200,
        every: Duration::from_millis(10),
        events: 5_000,
    };
    let report = run(&plan).await;
    let text: Vec<String> = report.checks.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert_eq!(report.counts.skipped, 0, "{text}");
    let mut failed = failed(&report);
    if let Some(cause) = failed.remove("performance/latency") {
        assert!(cause.contains("target below"), "{text}");
    }
    assert_eq!(failed, BTreeMap::new(), "{text}");
    let names: Vec<_> = report.checks.iter().map(|one| one.name.as_str()).collect();
    let quick = super::faults::QUICK.iter().copied();
    let all: Vec<_> = quick
        .chain(["performance/latency", "performance/throughput", "cleanup"])
        .collect();
    assert_eq!(names, all);
    let figures = |name: &str| {
        &report
            .checks
            .iter()
            .find(|one| one.name == name)
            .unwrap()
            .figures
    };
    assert_eq!(figures("integrity/digests")["events"], 5_000, "{text}");
    assert!(
        figures("cleanup")["erased"].as_u64().unwrap() > 10_000,
        "{text}"
    );
    assert_eq!(left(&db).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_fails_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api::new(&format!("http://{}", silent.local_addr().unwrap()));
    let began = std::time::Instant::now();
    let report = run(&plan(&api, Depth::Quick)).await;
    assert!(
        began.elapsed() < Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        (report.passed, report.counts.passed),
        (false, 0),
        "{report}"
    );
    assert!(
        failed(&report).values().all(|cause| cause.contains("time")),
        "{report:#?}"
    );
}
