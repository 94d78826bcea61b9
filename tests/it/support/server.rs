//! Servers: in this process, or as the real program that can be killed.

use std::process::Stdio;
use std::time::Duration;

use clap::Parser as _;
use tidewire::cli::{Cli, Command};
use tidewire::http::App;
use tidewire::http::serve::Patience;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clock::FakeClock;
use super::{Api, TestDb, signal};

/// Tests compare the log with what they have written: no audit comes in between, unless one asks for it. And servers go at once.
fn defaults(arguments: &[&str]) -> Vec<&'static str> {
    let defaults = [["--audit-interval-s", "0"], ["--drain-s", "0"]];
    let is_open = |setting: &[&'static str; 2]| !arguments.contains(&setting[0]);
    defaults.into_iter().filter(is_open).flatten().collect()
}

/// A server in this process. Stopped in order by `stop`, or dropped.
pub struct Server {
    /// Its API.
    pub api: Api,
    /// Its floors.
    pub app: App,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Server {
    /// Starts one on `db` with default settings.
    pub async fn start(db: &TestDb) -> Self {
        Self::start_with(&db.url, &[]).await
    }

    /// Starts one with more arguments of `tidewire serve`.
    pub async fn start_with(database_url: &str, arguments: &[&str]) -> Self {
        Self::start_patient(database_url, arguments, Patience::default()).await
    }

    /// The same, waiting for clients as long as this.
    pub async fn start_patient(database_url: &str, arguments: &[&str], patience: Patience) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().display().to_string();
        let mut line = vec![
            "tidewire",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            database_url,
            "--data-dir",
            &data_dir,
        ];
        line.extend(defaults(arguments));
        line.extend(arguments);
        let Command::Serve(config) = Cli::try_parse_from(line).unwrap().command else {
            panic!("serve")
        };
        let mut server = tidewire::app::Server::start(*config)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        server.patience = patience;
        let api = Api::new(&server.url());
        let app = server.app.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "joined by stop")]
        let running = tokio::spawn(async move {
            server.run(async { drop(stopped.await) }).await;
            drop(folder);
        });
        Self {
            api,
            app,
            stop: Some(stop),
            running,
        }
    }

    /// Stops it in order.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(Duration::from_secs(20), &mut self.running)
            .await
            .expect("the server stops")
            .unwrap();
    }
}

/// The real program.
pub struct Process {
    /// Its API.
    pub api: Api,
    child: Child,
}

impl Process {
    /// Starts it on `database_url` at a free port and waits until it listens.
    pub async fn start(database_url: &str, arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", database_url, arguments).await
    }

    /// The same at a given address.
    pub async fn start_at(listen: &str, database_url: &str, arguments: &[&str]) -> Self {
        Self::spawn(
            listen,
            database_url,
            arguments,
            Stdio::inherit(),
            Vec::new(),
        )
        .await
    }

    /// The same at a free port, with its log in a file.
    pub async fn start_logging(database_url: &str, arguments: &[&str], log: std::fs::File) -> Self {
        Self::spawn(
            "127.0.0.1:0",
            database_url,
            arguments,
            log.into(),
            Vec::new(),
        )
        .await
    }

    /// The same at a free port, with a single thread for all it does.
    pub async fn start_single(database_url: &str, arguments: &[&str]) -> Self {
        let environment = vec![("TOKIO_WORKER_THREADS", "1".to_owned())];
        Self::spawn(
            "127.0.0.1:0",
            database_url,
            arguments,
            Stdio::inherit(),
            environment,
        )
        .await
    }

    /// The same at a free port, with this clock.
    pub async fn start_by(clock: &FakeClock, database_url: &str, arguments: &[&str]) -> Self {
        let (log, environment) = (Stdio::inherit(), clock.environment());
        Self::spawn("127.0.0.1:0", database_url, arguments, log, environment).await
    }

    async fn spawn(
        listen: &str,
        database_url: &str,
        arguments: &[&str],
        log: Stdio,
        environment: Vec<(&str, String)>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .args([
                "serve",
                "--listen",
                listen,
                "--database-url",
                database_url,
                "--data-dir",
            ])
            .arg(&folder)
            .args(defaults(arguments))
            .args(arguments)
            .envs(environment)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
            .await
            .expect("it starts")
            .unwrap();
        let first = first.expect("it says where it listens");
        let url = first.rsplit(' ').next().unwrap().to_owned();
        let _ = std::fs::remove_dir_all(folder);
        // The rest of the banner is read, so that writing it never blocks.
        #[expect(clippy::disallowed_methods, reason = "ends with the program")]
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            api: Api::new(&url),
            child,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.api.url.split_once("://").unwrap().1.to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn terminate(&mut self) {
        let pid = self.pid().to_string();
        assert!(signal::send("-TERM", &[&pid]).await.success());
        assert!(self.child.wait().await.unwrap().success());
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
