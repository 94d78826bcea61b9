//! A database and a server for one figure.

use std::process::Stdio;

use tidewire::pg::{Connector, schema};
use tidewire::tasks::Tasks;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

/// A fresh database.
pub struct Database {
    pub url: String,
    name: String,
}

fn admin_url() -> String {
    std::env::var("TEST_DATABASE_URL").expect("run script/bench")
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    pub async fn new(name: &str) -> Self {
        let name = format!("tidewire_bench_{name}");
        let admin = connect(&admin_url()).await;
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        let mut url = url::Url::parse(&admin_url()).unwrap();
        url.set_path(&name);
        let url = url.to_string();
        let mut client = Connector::parse(&url, &Tasks::new())
            .unwrap()
            .connect("bench")
            .await
            .unwrap();
        schema::create_roles(&client).await.unwrap();
        schema::apply(&mut client, schema::Plan::default())
            .await
            .unwrap();
        Self { url, name }
    }

    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Empties caches that one side would find warm: makes the sides alike.
    pub async fn settle(&self) {
        let client = self.connect().await;
        // One at a time: several statements sent together are a transaction, in which VACUUM cannot run.
        for statement in ["CHECKPOINT", "VACUUM (ANALYZE) tidewire.events"] {
            client.batch_execute(statement).await.unwrap();
        }
    }

    pub async fn drop(self) {
        let admin = connect(&admin_url()).await;
        admin
            .batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await
            .unwrap();
    }
}

/// The real program.
pub struct Server {
    pub address: String,
    child: Child,
}

impl Server {
    pub async fn start(database: &Database, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "error",
                "--database-url",
                &database.url,
                "--data-dir",
            ])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("it listens");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            address: first.rsplit("http://").next().unwrap().to_owned(),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}
