//! What breaks under load: the program, connections, lines, notifications. Nothing acknowledged is lost, and every
//! reader gets the whole log by itself.

mod clock;
mod connections;
mod disk;
mod lines;
mod load;
mod witness;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;

pub use self::load::Load;
use crate::support::{Api, Process, Proxy, Server, TestDb, eventually};

/// How soon a broken line must be noticed, and a restored one be in use again.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing() {
    let db = TestDb::new().await;
    let mut server = Process::start(&db.url, &[]).await;
    let address = server.address();
    let load = Load::start(&server.api, &db.url);
    for _ in 0..3 {
        load.goes_on(200).await;
        server.kill().await;
        server = Process::start_at(&address, &db.url, &[]).await;
    }
    load.goes_on(200).await;
    load.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_backends_cost_a_retry() {
    let db = TestDb::new().await;
    // The smallest window: readers need history connections too.
    let server = Server::start_with(&db.url, &["--window-events", "2000"]).await;
    let admin = db.connect().await;
    let load = Load::start(&server.api, &db.url);
    for purpose in ["append 0", "append 1", "tail", "listen", "history", "%"] {
        load.goes_on(100).await;
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'tidewire ' || $1";
        let terminated = admin.execute(terminate, &[&purpose]).await.unwrap();
        assert!(terminated > 0 || purpose == "history", "{purpose}");
        load.goes_on(100).await;
    }
    load.judge().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_listen_line_is_replaced_by_polling() {
    let db = TestDb::new().await;
    let (proxy, listen_url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&db.url, &["--listen-database-url", &listen_url]).await;
    let client = db.connect().await;
    until_wake_up(&server.api, "asleep").await;
    proxy.hold();
    // It cannot know yet: the safety poll finds the event.
    assert!(arrival(&server.api, &client, "held").await < Duration::from_secs(3));
    until_wake_up(&server.api, "polling").await;
    assert!(arrival(&server.api, &client, "polled").await < Duration::from_secs(1));
    proxy.restore();
    until_wake_up(&server.api, "asleep").await;
    assert!(arrival(&server.api, &client, "restored").await < Duration::from_secs(1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_is_answered_with_503_and_loses_nothing() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &[]).await;
    let load = Load::start(&server.api, &db.url);
    load.goes_on(200).await;
    proxy.hold();
    until_ready(&server.api, false).await;
    load.is_refused().await;
    proxy.restore();
    until_ready(&server.api, true).await;
    load.goes_on(200).await;
    load.judge().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_database_line_loses_nothing() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &[]).await;
    let load = Load::start(&server.api, &db.url);
    for _ in 0..3 {
        load.goes_on(100).await;
        proxy.cut();
        until_ready(&server.api, false).await;
        proxy.restore();
        until_ready(&server.api, true).await;
    }
    load.goes_on(100).await;
    load.judge().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_notification_costs_one_poll() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let client = db.connect().await;
    let nobody_is_woken = "CREATE OR REPLACE FUNCTION tidewire.wake_servers()
        RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END'";
    client.batch_execute(nobody_is_woken).await.unwrap();
    for id in ["one", "two", "three"] {
        until_wake_up(&server.api, "asleep").await;
        let took = arrival(&server.api, &client, id).await;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_serve_the_same_bytes() {
    let db = TestDb::new().await;
    let servers = [Server::start(&db).await, Server::start(&db).await];
    let client = db.connect().await;
    let mut streams = Vec::new();
    for server in &servers {
        streams.push(
            server
                .api
                .sse("topics=*&after=earliest", None)
                .await
                .unwrap(),
        );
    }
    for number in 0..50 {
        insert(&client, &format!("sql-{number}")).await;
        let event = json!({"id": format!("rest-{number}"), "topic": "a.b", "data": {"ü": [number, 1.50, null]}});
        servers[number % 2].api.append(&event).await;
    }
    let mut live = [Vec::new(), Vec::new()];
    for (stream, events) in streams.iter_mut().zip(&mut live) {
        while events.len() < 100 {
            events.extend(stream.events().await.unwrap().unwrap().0);
        }
    }
    assert_eq!(live[0], live[1]);
    let mut pages = Vec::new();
    for server in &servers {
        let path = "/v1/events?after=earliest&limit=60";
        let request = server.api.request(reqwest::Method::GET, path);
        pages.push(request.send().await.unwrap().bytes().await.unwrap());
    }
    assert_eq!(pages[0], pages[1]);
    drop(streams);
    for server in servers {
        server.stop().await;
    }
}

/// Writes an event in SQL and says how long the server took to deliver it.
async fn arrival(api: &Api, client: &Client, id: &str) -> Duration {
    let mut stream = api.sse("topics=*&after=latest", None).await.unwrap();
    // The first message says that it is live.
    stream.next().await.unwrap().unwrap();
    let written = Instant::now();
    insert(client, id).await;
    let (events, _) = stream.events().await.unwrap().unwrap();
    assert_eq!(events[0]["id"], id);
    written.elapsed()
}

async fn insert(client: &Client, id: &str) {
    let query = "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('dev', $1, 'a.b')";
    client.execute(query, &[&id]).await.unwrap();
}

async fn until_wake_up(api: &Api, wanted: &str) {
    eventually(SOON, || async {
        let status: Value = api.get("/v1/status").await;
        match status["log"]["wake_up"].as_str() {
            Some(mode) if mode == wanted => Ok(()),
            other => Err(other.map(str::to_owned)),
        }
    })
    .await;
}

async fn until_ready(api: &Api, wanted: bool) {
    eventually(SOON, || async {
        let (status, _) = api.try_get("/readyz").await;
        if status.is_success() == wanted {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}
