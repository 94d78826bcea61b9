//! The embedded PostgreSQL with real processes: it survives restarts, kills and odd machines.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod machines;

use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, process};

use tempfile::TempDir;
use tidewire::pg::embedded::{Embedded, EmbeddedConfig, EmbeddedError};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_mins(1);

/// What `script/with-postgres` uses, else what `script/setup` has put into the cache.
#[expect(
    clippy::disallowed_methods,
    reason = "tests learn from the script where PostgreSQL is"
)]
fn config(data_dir: &Path) -> EmbeddedConfig {
    let cache = std::env::var("TIDEWIRE_CACHE_DIR").unwrap_or("/var/cache/tidewire".to_owned());
    EmbeddedConfig {
        data_dir: data_dir.to_owned(),
        postgres_bin: std::env::var("TIDEWIRE_POSTGRES_BIN")
            .ok()
            .map(PathBuf::from),
        cache_dir: PathBuf::from(cache),
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("tw-")
        .tempdir_in("/tmp")
        .unwrap()
}

/// A port outside those that other tests' servers choose from.
fn claim_port(data_dir: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(data_dir.join("port"), port.to_string()).unwrap();
    port
}

async fn start(data_dir: &Path) -> Embedded {
    Embedded::start(config(data_dir))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    spawn(connection);
    Ok(client)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's helpers end with its runtime"
)]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

/// What the server does with it: keeps it running until the token is cancelled, then stops it.
fn supervise(mut embedded: Embedded) -> (CancellationToken, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let task = spawn(async move {
        embedded.supervise(token).await;
        embedded.stop().await;
    });
    (shutdown, task)
}

/// Asks again until there is an answer.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let answer = async {
        loop {
            pause.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(DEADLINE, answer).await;
    answer.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

fn postmaster(data_dir: &Path) -> Option<u32> {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn kill(pid: u32) {
    // The shell's own kill: not every machine has the program.
    let script = format!("kill -KILL {pid}");
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
}

/// Running, zombies aside.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn count(url: &str) -> Option<i64> {
    let client = connect(url).await.ok()?;
    Some(
        client
            .query_one("SELECT count(*) FROM kept", &[])
            .await
            .ok()?
            .get(0),
    )
}

async fn keep_a_row(url: &str) {
    let client = connect(url).await.unwrap();
    let sql = "CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1)";
    client.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn data_outlives_a_stop_and_the_url_stays_the_same() {
    let folder = folder();
    claim_port(folder.path());
    let first = start(folder.path()).await;
    let url = first.connection_url();
    keep_a_row(&url).await;
    let pid = postmaster(folder.path()).unwrap();
    first.stop().await;
    assert!(!is_alive(pid));
    assert!(connect(&url).await.is_err());

    let second = start(folder.path()).await;
    assert_eq!(second.connection_url(), url);
    assert_eq!(count(&url).await, Some(1));
    let client = connect(&url).await.unwrap();
    let sql = "SELECT extversion, current_setting('fsync'), current_setting('jit'),
               current_setting('timescaledb.telemetry_level'), lower('Ä')
               FROM pg_extension WHERE extname = 'timescaledb'";
    let row = client.query_one(sql, &[]).await.unwrap();
    let settings = [1, 2, 3].map(|column| row.get::<_, String>(column));
    assert_eq!(settings, ["on", "off", "off"]);
    second.stop().await;
}

#[tokio::test]
async fn a_killed_postmaster_is_restarted_until_shutdown() {
    let folder = folder();
    claim_port(folder.path());
    let embedded = start(folder.path()).await;
    let url = embedded.connection_url();
    keep_a_row(&url).await;
    let (shutdown, task) = supervise(embedded);
    let mut pid = postmaster(folder.path()).unwrap();
    for _ in 0..3 {
        kill(pid);
        let next = eventually("another postmaster", || async {
            postmaster(folder.path()).filter(|next| *next != pid)
        });
        pid = next.await;
        let rows = eventually("the committed row", || count(&url)).await;
        assert_eq!(rows, 1);
    }
    shutdown.cancel();
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_restart_does_without_a_port_that_was_taken_meanwhile() {
    let folder = folder();
    let port = claim_port(folder.path());
    let embedded = start(folder.path()).await;
    let url = embedded.connection_url();
    keep_a_row(&url).await;
    kill(postmaster(folder.path()).unwrap());
    let bind = || async { TcpListener::bind(("127.0.0.1", port)).ok() };
    let occupant = eventually("a free port", bind).await;
    let (shutdown, task) = supervise(embedded);
    let rows = eventually("the committed row", || count(&url)).await;
    assert_eq!(rows, 1);
    shutdown.cancel();
    task.await.unwrap();
    drop(occupant);
}

#[tokio::test]
async fn a_start_after_the_servers_kill_takes_over() {
    let folder = folder();
    claim_port(folder.path());
    let first = start(folder.path()).await;
    let url = first.connection_url();
    keep_a_row(&url).await;
    // What SIGKILL does to a server: its lock ends, its child does not.
    drop(first);
    let orphan = postmaster(folder.path()).unwrap();
    assert!(is_alive(orphan));
    let idle = connect(&url).await.unwrap();

    let second = start(folder.path()).await;
    assert!(!is_alive(orphan));
    assert!(idle.simple_query("SELECT 1").await.is_err());
    assert_eq!(second.connection_url(), url);
    assert_eq!(count(&second.connection_url()).await, Some(1));
    second.stop().await;
}

#[tokio::test]
async fn children_of_a_killed_postmaster_are_waited_for() {
    let folder = folder();
    let first = start(folder.path()).await;
    let url = first.connection_url();
    keep_a_row(&url).await;
    let busy = connect(&url).await.unwrap();
    let query = spawn(async move { busy.simple_query("SELECT pg_sleep(60)").await.is_ok() });
    drop(first);
    kill(postmaster(folder.path()).unwrap());
    let second = start(folder.path()).await;
    assert_eq!(count(&second.connection_url()).await, Some(1));
    query.abort();
    second.stop().await;
}

#[tokio::test]
async fn a_stale_pid_file_naming_another_process_does_not_block_the_start() {
    let folder = folder();
    let first = start(folder.path()).await;
    keep_a_row(&first.connection_url()).await;
    let pid_file = folder.path().join("postgres/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    let owner = fs::metadata(&pid_file).unwrap();
    first.stop().await;
    // A bystander with PostgreSQL's user id, which is what makes PostgreSQL believe the file.
    let mut bystander = Command::new("cat");
    bystander.stdin(process::Stdio::piped());
    if owner.uid() != fs::metadata("/proc/self").unwrap().uid() {
        std::os::unix::process::CommandExt::uid(&mut bystander, owner.uid());
    }
    let mut bystander = bystander.spawn().unwrap();
    let rest = text.split_once('\n').unwrap().1;
    fs::write(&pid_file, format!("{}\n{rest}", bystander.id())).unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let second = start(folder.path()).await;
    assert_eq!(count(&second.connection_url()).await, Some(1));
    second.stop().await;
    assert!(is_alive(bystander.id()));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let folder = folder();
    let first = start(folder.path()).await;
    let error = Embedded::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::InUse(_)));
    assert!(
        error
            .to_string()
            .starts_with("another tidewire uses this data directory")
    );
    assert!(connect(&first.connection_url()).await.is_ok());
    first.stop().await;
}

#[tokio::test]
async fn a_start_given_up_halfway_leaves_no_process() {
    let folder = folder();
    start(folder.path()).await.stop().await;
    let mut starting = Box::pin(Embedded::start(config(folder.path())));
    let pid = tokio::select! {
        _ = &mut starting => panic!("too quick to be given up"),
        pid = eventually("a postmaster", || async { postmaster(folder.path()) }) => pid,
    };
    drop(starting);
    eventually("its end", || async { (!is_alive(pid)).then_some(()) }).await;
    start(folder.path()).await.stop().await;
}

#[tokio::test]
async fn the_psql_line_can_be_pasted_and_holds_no_password() {
    let folder = folder();
    let data_dir = folder.path().join("it's a folder");
    let embedded = start(&data_dir).await;
    let hint = embedded.psql_hint();
    let script = format!("{hint} -XAtc 'SELECT current_user, inet_server_addr()'");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "tidewire|127.0.0.1",
        "{output:?}"
    );

    let passfile = data_dir.join("pgpass");
    assert_eq!(
        fs::metadata(&passfile).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&passfile).unwrap();
    let password = text.trim().rsplit(':').next().unwrap();
    assert!(password.len() == 32 && !hint.contains(password));
    // Without the password nobody gets in over TCP.
    let refused = script.replacen(
        "PGPASSFILE=",
        "PGPASSFILE=/dev/null PGPASSWORD=x UNUSED=",
        1,
    );
    assert!(
        !Command::new("sh")
            .args(["-c", &refused])
            .output()
            .unwrap()
            .status
            .success()
    );
    embedded.stop().await;
}
