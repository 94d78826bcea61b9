//! The storm of readers.

use std::time::Duration;

use serde_json::Value;
use tidewire::check::Wire;
use tidewire::check::drill::{self, Drill};
use tidewire::client::{Client, Secret};

use super::tampering::{Harm, Spoil, Tampering, Way};
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Process, Server, TestDb, signal};

fn drill(api: &Api, wire: Wire) -> Drill {
    Drill {
        client: Client::new(&api.url, Some(&Secret::new(&token::token("acme")))).unwrap(),
        wire,
        clients: 20,
        kill_every: Duration::from_secs(1),
        duration: Duration::from_millis(3_500),
        rate: 100,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_loses_nothing_on_either_transport() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    for wire in [Wire::WebSocket, Wire::Sse] {
        let drilled = drill::run(&drill(&server.api, wire), &mut |_| {})
            .await
            .unwrap();
        assert!(drilled.passed, "{drilled}");
        assert_eq!((drilled.cuts, drilled.recovery.count), (3, 60), "{drilled}");
        assert!(drilled.events >= 100, "{drilled}");
        assert_eq!(drilled.delivered, drilled.events * 20, "{drilled}");
        assert!(
            drilled.fairness_delivered > 0.9 && drilled.is_erased,
            "{drilled}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_or_repeated_on_the_way_is_counted() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    for (wire, way) in [(Wire::Sse, Way::Sse), (Wire::WebSocket, Way::Socket)] {
        // One event of each connection, of which there were four each.
        for (harm, of) in [(Harm::Drops, "missing"), (Harm::Repeats, "twice")] {
            let proxy = Tampering::before(&server.api, Spoil::Delivered(way, harm)).await;
            let drilled = drill::run(&drill(&proxy.api, wire), &mut |_| {}).await;
            let drilled = drilled.unwrap();
            let (seen, not_seen) = match harm {
                Harm::Drops => (drilled.missing, drilled.duplicated),
                _ => (drilled.duplicated, drilled.missing),
            };
            assert!(!drilled.passed && seen >= 20, "{of}: {drilled}");
            assert_eq!(not_seen, 0, "{of}: {drilled}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_loses_nothing() {
    let db = TestDb::new().await;
    let first = Process::start(&db.url, WITH_TOKENS).await;
    let (address, pid, url) = (
        first.address(),
        first.pid().to_string(),
        first.api.url.clone(),
    );
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args([
        "drill",
        "--clients",
        "20",
        "--kill-every",
        "3",
        "--duration",
        "8",
        "--json",
    ]);
    command.args([
        "--kill-pid",
        &pid,
        "--url",
        &url,
        "--token",
        &token::token("acme"),
    ]);
    let drilling = command.kill_on_drop(true).output();
    let restarting = async {
        // Whoever is its supervisor: as soon as it is gone.
        while signal::send("-0", &[&pid]).await.success() && !is_defunct(&pid) {
            tokio::task::yield_now().await;
        }
        // Waited for until its last thread, and with it its port, is free.
        first.kill().await;
        Process::start_at(&address, &db.url, WITH_TOKENS).await
    };
    let (drilled, second) = tokio::join!(drilling, restarting);
    let drilled = drilled.unwrap();
    let report: Value = serde_json::from_slice(&drilled.stdout).unwrap();
    assert!(drilled.status.success(), "{report:#}");
    assert_eq!(
        (&report["missing"], &report["duplicated"]),
        (&0.into(), &0.into()),
        "{report:#}"
    );
    assert!(report["events"].as_u64().unwrap() > 100, "{report:#}");
    second.kill().await;
}

/// Killed, and not yet waited for by this test.
fn is_defunct(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_cuts_nobody_off_has_not_passed() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let calm = Drill {
        kill_every: Duration::from_secs(10),
        duration: Duration::from_secs(1),
        ..drill(&server.api, Wire::Sse)
    };
    let drilled = drill::run(&calm, &mut |_| {}).await.unwrap();
    assert_eq!((drilled.cuts, drilled.missing), (0, 0), "{drilled}");
    assert!(!drilled.passed && !drilled.is_exercised(), "{drilled}");
    assert!(drilled.to_string().contains("NOT EXERCISED"), "{drilled}");
    // As a command nothing is begun.
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["drill", "--kill-every", "5", "--duration", "5"]);
    command.args(["--url", &server.api.url, "--token", &token::token("acme")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("--kill-every"),
        "{said}"
    );
    server.stop().await;
}
