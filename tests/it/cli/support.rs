//! A server to talk to, and the program as a process.
//!
//! The tests read and write through the program itself.

use std::process::{ExitStatus, Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::signal;

/// A running server.
pub struct Server {
    pub url: String,
    pub token: String,
    _running: crate::support::Server,
    _db: crate::support::TestDb,
}

impl Server {
    pub async fn start() -> Self {
        let db = crate::support::TestDb::new().await;
        let secret = "a secret of at least thirty-two bytes";
        let server = crate::support::Server::start_with(&db.url, &["--jwt-secret", secret]).await;
        let words = ["token", "--jwt-secret", secret];
        let issued = tidewire(&words).output().await.unwrap();
        Self {
            url: server.api.url.clone(),
            token: String::from_utf8(issued.stdout).unwrap().trim().to_owned(),
            _running: server,
            _db: db,
        }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = tidewire(words);
        command
            .env("TIDEWIRE_URL", &self.url)
            .env("TIDEWIRE_TOKEN", &self.token);
        command
    }

    pub async fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().await.unwrap()
    }

    /// The whole log, as the program prints it.
    pub async fn log(&self) -> Vec<Value> {
        let output = self
            .run(&["follow", "--after", "earliest", "--until-caught-up"])
            .await;
        assert!(output.status.success(), "{}", stderr(&output));
        events(&output.stdout)
    }

    /// Writes events through the program's stdin.
    pub async fn append(&self, lines: &[Value]) -> Output {
        let mut child = self
            .command(&["append"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = lines
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }
}

pub fn tidewire(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub fn events(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub fn ids(events: &[Value]) -> Vec<String> {
    let ids = events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned());
    ids.collect()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn numbered(from: usize, count: usize) -> Vec<Value> {
    let numbers = from..from + count;
    numbers
        .map(|n| json!({"id": format!("e-{n}"), "topic": "deal.stage.updated", "subject": "deal-7", "data": n}))
        .collect()
}

pub fn lines_of(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

pub async fn interrupt(child: &mut Child) -> ExitStatus {
    let pid = child.id().unwrap().to_string();
    assert!(signal::send("-INT", &[&pid]).await.success());
    child.wait().await.unwrap()
}
