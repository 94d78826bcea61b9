//! NOTIFY on demand: a server that sleeps is woken, one that is awake costs writers nothing, an idle one is quiet.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidewire::log::inbox::Inbox;
use tidewire::log::listener::Listener;
use tidewire::log::wakeup::NotifyMode;
use tidewire::pg::Connector;
use tidewire::tasks::Tasks;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::{Proxy, Server, TestDb, eventually};

/// How soon a server settles.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_sleeps_until_much_is_written_and_then_sleeps_again() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let client = db.connect().await;
    wake_up(&server, "asleep").await;
    wake(&server, &client).await;
    wake_up(&server, "asleep").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_server_is_woken_by_a_writer_whose_snapshot_is_older() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let client = db.connect().await;
    let busy = db.connect().await;
    wake(&server, &busy).await;
    // Its snapshot is taken while the server is awake.
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM tidewire.log")
        .await
        .unwrap();
    wake_up(&server, "asleep").await;
    let mut heard = listen(&db).await;
    insert(&client).await;
    client.batch_execute("COMMIT").await.unwrap();
    heard.wait().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_notify_only_servers_that_sleep() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let mut heard = listen(&db).await;
    // Nobody sleeps: there is no server.
    insert(&client).await;
    assert_eq!(heard.so_far(&client).await, 0);
    let always = Server::start_with(&db.url, &["--notify", "always"]).await;
    wake_up(&always, "asleep").await;
    for _ in 0..200 {
        insert(&client).await;
    }
    assert_eq!(heard.so_far(&client).await, 200);
    is(&always, "asleep").await.unwrap();
    always.stop().await;
    let never = Server::start_with(&db.url, &["--notify", "never"]).await;
    wake_up(&never, "polling").await;
    let listening = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'tidewire listen'";
    let listening: i64 = client.query_one(listening, &[]).await.unwrap().get(0);
    assert_eq!(listening, 0, "a pooler may stand there");
    insert(&client).await;
    assert_eq!(heard.so_far(&client).await, 200);
    let newest = newest(&client).await;
    eventually(SOON, || async {
        let watermark = never.api.get("/v1/status").await["log"]["watermark"].as_i64();
        if watermark == Some(newest) {
            Ok(())
        } else {
            Err(watermark)
        }
    })
    .await;
    never.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_asks_little() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let admin = crate::support::db::admin().await;
    wake_up(&server, "asleep").await;
    // Asleep it makes some eight transactions a second, most of them looks for credentials and erasures; awake sixty more. They are counted over a time, since the statistics
    // lag behind by a second: those of the start come in meanwhile.
    let mut seconds = tokio::time::interval(Duration::from_secs(4));
    seconds.tick().await;
    seconds.tick().await;
    let before = transactions(&admin, &db).await;
    seconds.tick().await;
    let made = transactions(&admin, &db).await - before;
    assert!(made < 80, "{made} transactions in four seconds");
    server.stop().await;
}

/// Writes until the server stays awake.
async fn wake(server: &Server, client: &Client) {
    eventually(SOON, || async {
        for _ in 0..100 {
            insert(client).await;
        }
        is(server, "awake").await
    })
    .await;
}

async fn insert(client: &Client) {
    let query = "INSERT INTO tidewire.events (tenant, topic) VALUES ('dev', 'a.b')";
    client.batch_execute(query).await.unwrap();
}

async fn newest(client: &Client) -> i64 {
    let query = "SELECT max(seq) FROM tidewire.events";
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn transactions(admin: &Client, db: &TestDb) -> i64 {
    let name = db.url.rsplit('/').next().unwrap();
    let query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
    admin.query_one(query, &[&name]).await.unwrap().get(0)
}

async fn wake_up(server: &Server, wanted: &str) {
    eventually(SOON, || is(server, wanted)).await;
}

/// Whether the server is asleep, awake or polling, as `wanted`.
async fn is(server: &Server, wanted: &str) -> Result<(), Value> {
    let found = server.api.get("/v1/status").await["log"]["wake_up"].take();
    if found == wanted { Ok(()) } else { Err(found) }
}

/// Hears what servers hear.
struct Heard {
    notifications: tokio::sync::mpsc::Receiver<String>,
    count: usize,
    _client: Client,
    _driving: tokio::task::JoinSet<()>,
}

async fn listen(db: &TestDb) -> Heard {
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let (sender, notifications) = tokio::sync::mpsc::channel(10_000);
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(one) = message {
                let _ = sender.send(one.channel().to_owned()).await;
            }
        }
    });
    client
        .batch_execute("LISTEN tidewire; LISTEN mark")
        .await
        .unwrap();
    Heard {
        notifications,
        count: 0,
        _client: client,
        _driving: driving,
    }
}

impl Heard {
    /// Waits for one.
    async fn wait(&mut self) {
        let one = tokio::time::timeout(SOON, self.notifications.recv()).await;
        assert_eq!(one.expect("a notification").as_deref(), Some("tidewire"));
        self.count += 1;
    }

    /// How many there were up to now: notifications come in the order of commits.
    async fn so_far(&mut self, client: &Client) -> usize {
        client.batch_execute("NOTIFY mark").await.unwrap();
        loop {
            let one = tokio::time::timeout(SOON, self.notifications.recv()).await;
            if one.expect("the mark").as_deref() == Some("mark") {
                return self.count;
            }
            self.count += 1;
        }
    }
}

/// A line that answers too late: what it was asked may be done or not, so the connection goes, and with it the lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_whether_it_sleeps_is_not_notified_for_ever() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let (client, tasks) = (db.connect().await, Tasks::new());
    let connector = Connector::parse(&url, &tasks).unwrap();
    let listener = Listener::start(
        NotifyMode::Auto,
        connector,
        Arc::new(Inbox::default()),
        &tasks,
    );
    let ear = async || eventually(SOON, || async { listener.ear().ok_or("no connection") }).await;
    let asleep = async || {
        eventually(SOON, || async {
            let ear = ear().await;
            if ear.sleep().await {
                Ok(ear)
            } else {
                Err("awake")
            }
        })
        .await
    };
    let nobody_sleeps = async || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1953064036
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually(SOON, || async {
            let locks: i64 = client.query_one(locks, &[]).await.unwrap().get(0);
            (locks == 0).then_some(()).ok_or(locks)
        })
        .await;
    };
    let first = asleep().await;
    proxy.hold();
    first.wake().await;
    drop(first);
    proxy.restore();
    nobody_sleeps().await;
    let second = ear().await;
    proxy.hold();
    assert!(!second.sleep().await);
    drop(second);
    proxy.restore();
    asleep().await.wake().await;
    nobody_sleeps().await;
    tasks.stop(SOON).await;
}
