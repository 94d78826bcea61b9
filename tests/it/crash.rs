//! PostgreSQL itself dies: a cluster of the test's own, every process of which is killed at once.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tidewire::pg::embedded::{Embedded, EmbeddedConfig};
use tidewire::pg::schema;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::faults::Load;
use crate::history::writers::connect;
use crate::support::{Server, eventually, signal};

/// Recovery, and the server's next look.
const RECOVERY: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_database_loses_nothing_acknowledged() {
    let cluster = Cluster::start().await;
    let server = Server::start_with(&cluster.url, &[]).await;
    let load = Load::start(&server.api, &cluster.url);
    for _ in 0..2 {
        load.goes_on(200).await;
        cluster.kill().await;
        load.goes_on(200).await;
    }
    load.judge().await;
    server.stop().await;
    cluster.stop().await;
}

/// Its children finish what they are at, and nobody takes new connections until they are gone and it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postmaster_whose_children_live_on_loses_nothing_acknowledged() {
    let cluster = Cluster::start().await;
    let server = Server::start_with(&cluster.url, &[]).await;
    let load = Load::start(&server.api, &cluster.url);
    for _ in 0..2 {
        load.goes_on(200).await;
        let before = cluster.postmaster();
        cluster.kill_postmaster().await;
        eventually(RECOVERY, || async {
            match cluster.try_postmaster() {
                Some(now) if now != before => Ok(()),
                other => Err(other),
            }
        })
        .await;
        load.goes_on(200).await;
    }
    load.judge().await;
    server.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_a_crash_gives_out_again_are_not_passed() {
    let cluster = Cluster::start().await;
    let server = Server::start_with(&cluster.url, &[]).await;
    let writer = connect(&cluster.url, "writer").await;
    server
        .api
        .append(&json!({"id": "before", "topic": "a.b"}))
        .await;
    // Places are handed out, and a rollback flushes nothing; older versions wake the writer of the WAL for it.
    let wal_writer = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'walwriter'";
    let wal_writer: String = writer.query_one(wal_writer, &[]).await.unwrap().get(0);
    assert!(signal::send("-STOP", &[&wal_writer]).await.success());
    let rolled_back = "BEGIN; INSERT INTO tidewire.events (tenant, topic)
        SELECT 'dev', 'a.b' FROM generate_series(1, 500); ROLLBACK";
    writer.batch_execute(rolled_back).await.unwrap();
    let (handed_out, cursor) = eventually(RECOVERY, || async {
        let log = server.api.get("/v1/status").await["log"].take();
        let page = server.api.page("earliest", "").await;
        match log["newest"].as_i64() {
            Some(newest) if newest > 500 => Ok((newest, page["cursor"].clone())),
            other => Err(other),
        }
    })
    .await;
    cluster.kill().await;
    eventually(RECOVERY, || async {
        let (status, answer) = server
            .api
            .try_append(&json!({"id": "after", "topic": "a.b"}))
            .await;
        if status.is_success() {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    let client = connect(&cluster.url, "judge").await;
    let place = "SELECT seq FROM tidewire.events WHERE id = 'after'";
    let place: i64 = client.query_one(place, &[]).await.unwrap().get(0);
    assert!(
        place <= handed_out,
        "nothing was lost: {place} {handed_out}"
    );
    let page = server.api.page(cursor.as_str().unwrap(), "&wait=5").await;
    assert_eq!(page["events"][0]["id"], "after", "{page}");
    server.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_is_on_disk_whatever_synchronous_commit_says() {
    let cluster = Cluster::start().await;
    let server = Server::start_with(&cluster.url, &[]).await;
    cluster.set("wal_writer_delay", "10s").await;
    cluster.set("synchronous_commit", "off").await;
    let event = json!({"id": "acknowledged", "topic": "a.b"});
    server.api.append(&event).await;
    cluster.kill().await;
    let again = eventually(RECOVERY, || async {
        let (status, answer) = server.api.try_append(&event).await;
        if status.is_success() {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await;
    assert_eq!(again["events"][0]["duplicate"], true, "{again}");
    server.stop().await;
    cluster.stop().await;
}

/// A PostgreSQL of the test's own, started again whenever it ends.
pub struct Cluster {
    /// For `DATABASE_URL`, as a superuser.
    pub url: String,
    folder: TempDir,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

impl Cluster {
    /// Starts one.
    pub async fn start() -> Self {
        let bin = std::env::var_os("TIDEWIRE_POSTGRES_BIN").expect("run with script/with-postgres");
        Self::start_in(tempfile::tempdir().unwrap(), PathBuf::from(bin)).await
    }

    /// Starts one in a folder, with these programs.
    pub async fn start_in(folder: TempDir, bin: PathBuf) -> Self {
        // The database's user must be able to pass.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut embedded = Embedded::start(EmbeddedConfig {
            data_dir: folder.path().join("data"),
            postgres_bin: Some(bin),
            cache_dir: folder.path().join("cache"),
        })
        .await
        .unwrap();
        let url = embedded.connection_url();
        schema::create_roles(&connect(&url, "roles").await)
            .await
            .unwrap();
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        let until = shutdown.clone();
        running.spawn(async move {
            embedded.supervise(until).await;
            embedded.stop().await;
        });
        Self {
            url,
            folder,
            shutdown,
            running,
        }
    }

    /// Where it lives: its data directory is `data`.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Changes a setting for all sessions to come. With `wal_writer_delay` at 10 s nothing reaches the disk but by a
    /// commit, as long as a test lasts.
    pub async fn set(&self, name: &str, value: &str) {
        let client = connect(&self.url, "settings").await;
        let change = format!("ALTER SYSTEM SET {name} = '{value}'");
        client.batch_execute(&change).await.unwrap();
        client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        eventually(RECOVERY, || async {
            let now = client
                .query_one(&format!("SHOW {name}"), &[])
                .await
                .unwrap();
            let now: String = now.get(0);
            if now == value { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// SIGKILL for the postmaster and all its children: what had not reached the disk is gone.
    pub async fn kill(&self) {
        let postmaster = self.postmaster();
        let children =
            std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.unwrap();
        let mut pids = vec![postmaster.as_str()];
        pids.extend(children.split_whitespace());
        // A child may have ended by itself meanwhile; the postmaster has not.
        let _ = signal::send("-KILL", &pids).await;
    }

    /// SIGKILL for the postmaster alone.
    async fn kill_postmaster(&self) {
        assert!(signal::send("-KILL", &[&self.postmaster()]).await.success());
    }

    /// The postmaster's process id.
    fn postmaster(&self) -> String {
        self.try_postmaster().expect("a postmaster.pid")
    }

    pub fn try_postmaster(&self) -> Option<String> {
        let pid_file = find(self.folder.path().join("data"))?;
        let text = std::fs::read_to_string(pid_file).ok()?;
        Some(text.lines().next()?.to_owned())
    }

    /// Stops it for good.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

fn find(folder: PathBuf) -> Option<PathBuf> {
    let here = folder.join("postmaster.pid");
    if here.exists() {
        return Some(here);
    }
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .find_map(|entry| find(entry.path()))
}
