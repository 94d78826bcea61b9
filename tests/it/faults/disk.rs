//! A PostgreSQL whose disk is full: all of its data and its WAL lie on a small disk, which is filled.

use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::load::Load;
use super::witness::Witness;
use crate::crash::Cluster;
use crate::history::writers::connect;
use crate::support::skip::skip;
use crate::support::tmpfs::Tmpfs;
use crate::support::{Api, Server, eventually};

const PATIENCE: Duration = Duration::from_mins(1);
/// A cluster with the schema takes some 150 MB, its WAL included.
const DISK_MB: usize = 320;

/// A server on a cluster with a small disk, under load, before a reader that stays.
struct Site {
    cluster: Cluster,
    server: Server,
    load: Load,
    witness: Witness,
    // Last: what lies on it is gone before it is.
    disk: Tmpfs,
}

impl Site {
    /// `None`, said plainly, where nothing can be mounted.
    async fn start() -> Option<Self> {
        let disk = match Tmpfs::mount(DISK_MB) {
            Ok(disk) => disk,
            Err(why) => {
                let what = "no disk can be filled, since mounting a tmpfs needs root";
                skip(what, &why, Tmpfs::may_mount());
                return None;
            }
        };
        let bin = std::env::var_os("TIDEWIRE_POSTGRES_BIN").expect("run with script/with-postgres");
        let folder = tempfile::tempdir_in(disk.path()).unwrap();
        let cluster = Cluster::start_in(folder, PathBuf::from(bin)).await;
        let server = Server::start_with(&cluster.url, &["--breaker-recovery-s", "1"]).await;
        let witness = Witness::live(&server.api).await;
        let load = Load::start(&server.api, &cluster.url);
        load.goes_on(100).await;
        Some(Self {
            cluster,
            server,
            load,
            witness,
            disk,
        })
    }

    /// All goes on, and nothing is missing.
    async fn judge(self) {
        self.load.goes_on(100).await;
        eventually(PATIENCE, || async {
            let status = self.server.api.get("/v1/status").await;
            let issues = status["issues"].as_array().unwrap();
            let is_full = issues.iter().any(|issue| issue["code"] == "disk-full");
            (!is_full).then_some(()).ok_or(status)
        })
        .await;
        self.load.judge().await;
        self.witness.judge(&self.cluster.url).await;
        self.server.stop().await;
        self.cluster.stop().await;
        drop(self.disk);
    }
}

/// An event that no page of a table has room for besides others, and that cannot be compressed.
async fn append_some(api: &Api) -> (StatusCode, Option<u64>, Value) {
    let random: String = (0..6_000)
        .map(|_| rand::rng().random_range('a'..='z'))
        .collect();
    let event = json!({"topic": "disk.full", "data": random});
    let answer = api
        .request(Method::POST, "/v1/events")
        .json(&event)
        .send()
        .await
        .unwrap();
    let after = answer
        .headers()
        .get("retry-after")
        .map(|after| after.to_str().unwrap().parse().unwrap());
    (answer.status(), after, answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_nothing_is_lost() {
    let Some(site) = Site::start().await else {
        return;
    };
    let api = &site.server.api;
    site.disk.fill();
    let problem = eventually(PATIENCE, || async {
        let (status, after, problem) = append_some(api).await;
        if status == StatusCode::CREATED {
            return Err(problem);
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
        assert!(after.is_some_and(|after| after >= 1), "{problem}");
        let is_named = problem["detail"].as_str().unwrap().contains("53100");
        is_named.then(|| problem.clone()).ok_or(problem)
    })
    .await;
    assert_eq!(problem["type"], "/problems/unavailable", "{problem}");
    site.load.is_refused().await;
    let status = api.get("/v1/status").await;
    let issues = status["issues"].as_array().unwrap();
    let full = issues.iter().find(|issue| issue["code"] == "disk-full");
    let full = full.unwrap_or_else(|| panic!("{status}"));
    assert!(
        full["cause"]
            .as_str()
            .unwrap()
            .contains("No space left on device"),
        "{full}"
    );
    assert!(
        full["advice"].as_str().unwrap().contains("retention"),
        "{full}"
    );
    // It reads all the while.
    assert!(
        !api.page("earliest", "").await["events"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(api.try_get("/readyz").await.0.is_success());
    site.disk.free();
    site.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_panics_over_its_full_wal_loses_nothing() {
    let Some(site) = Site::start().await else {
        return;
    };
    let api = &site.server.api;
    let before = site.cluster.try_postmaster();
    site.disk.fill();
    // More WAL than what is laid out ahead: PostgreSQL gives up, and cannot recover before there is room.
    let writer = connect(&site.cluster.url, "writer").await;
    let message = "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000))";
    let ended = loop {
        if let Err(error) = writer.execute(message, &[]).await {
            break error;
        }
    };
    assert!(ended.is_closed() || ended.code().is_some(), "{ended:?}");
    eventually(PATIENCE, || async {
        let (status, _) = api.try_get("/readyz").await;
        (status == StatusCode::SERVICE_UNAVAILABLE)
            .then_some(())
            .ok_or(status)
    })
    .await;
    let (status, after, problem) = append_some(api).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert!(after.is_some(), "{problem}");
    assert!(api.try_get("/livez").await.0.is_success());
    assert!(
        !api.page("earliest", "").await["events"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    site.disk.free();
    eventually(PATIENCE, || async {
        let (status, said) = api.try_get("/readyz").await;
        status.is_success().then_some(()).ok_or(said)
    })
    .await;
    println!("{before:?} {:?}", site.cluster.try_postmaster());
    site.judge().await;
}
