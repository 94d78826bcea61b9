//! Who wrote and read what stands in the tenant's own log, for its administrators.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::credentials::create_key;
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Proxy, Server, TestDb, eventually};

const INTERVAL: &[&str] = &["--audit-interval-s", "1"];
const PATIENCE: Duration = Duration::from_secs(10);

async fn audit(api: &Api, topics: &str) -> Vec<Value> {
    let page = api
        .get(&format!("/v1/events?topics={topics}&limit=1000"))
        .await;
    page["events"].as_array().unwrap().clone()
}

/// Waits until the audit of this topic counts so many.
async fn counted(admin: &Api, topic: &str, by: &str, wanted: u64) -> Vec<Value> {
    eventually(PATIENCE, || async {
        let events = audit(admin, topic).await;
        let own: Vec<Value> = events
            .into_iter()
            .filter(|event| event["subject"] == by)
            .collect();
        let sum: u64 = own
            .iter()
            .map(|event| event["data"]["count"].as_u64().unwrap())
            .sum();
        (sum == wanted).then_some(own.clone()).ok_or(own)
    })
    .await
}

#[tokio::test]
async fn it_says_who_wrote_what_by_every_way() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &[WITH_TOKENS, INTERVAL].concat()).await;
    let acme = server.api.with_token(&token::token("acme"));
    let (id, key) = create_key(&acme).await;
    let agent = server.api.with_token(&key);
    agent
        .append(&json!([{"topic": "deal.won", "id": "1"}, {"topic": "deal.lost"}]))
        .await;
    agent
        .append(&json!([{"topic": "deal.won", "id": "1"}]))
        .await;
    let (status, _) = agent.try_append(&json!({"topic": "agent.x"})).await;
    assert_eq!(status, 403, "what is refused is not in it, nor a duplicate");
    let lines = "{\"topic\":\"deal.won\"}\n".repeat(3) + "{\"topic\":\"agent.x\"}\n";
    let upload = agent
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson");
    upload
        .body(lines)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let mut ws = agent.ws().await;
    ws.send(json!({"type": "append", "ref": "r", "events": {"topic": "deal.won"}}))
        .await;
    ws.until("appended").await;
    let appended = counted(&acme, "tidewire.audit.events.appended", "agent-7", 6).await;
    let of = |topic: &str| {
        appended
            .iter()
            .filter_map(|event| event["data"]["topics"][topic].as_u64())
            .sum::<u64>()
    };
    assert_eq!((of("deal.won"), of("deal.lost"), of("agent.x")), (5, 1, 0));
    for event in &appended {
        let data = &event["data"];
        assert_eq!(
            (&data["by"], &data["role"]),
            (&json!("agent-7"), &json!("agent"))
        );
        assert_eq!(data["credential"]["api_key"], json!(id));
        assert!(data["first_at"].as_str() <= data["last_at"].as_str());
    }
    server.stop().await;
}

/// Whoever hangs up before it is answered has written nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_wrote_and_did_not_wait_for_the_answer() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &[WITH_TOKENS, INTERVAL].concat()).await;
    let acme = server.api.with_token(&token::token("acme"));
    let (_, key) = create_key(&acme).await;
    let agent = server.api.with_token(&key);
    let (client, holder) = (db.connect().await, db.connect().await);
    // Their ids are held, so that their turn does not come before they have gone.
    let held = "BEGIN; SELECT tidewire.append('x', id => id, tenant => 'acme') FROM unnest('{1,2}'::text[]) AS id";
    holder.batch_execute(held).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    let request = agent.request(Method::POST, "/v1/events");
    let request = request.json(&json!({"id": "1", "topic": "deal.won"}));
    asking.spawn(async move { request.send().await.map(drop) });
    let mut ws = agent.ws().await;
    ws.send(json!({"type": "append", "events": {"id": "2", "topic": "deal.won"}}))
        .await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                      AND application_name LIKE 'tidewire append patiently%'";
    eventually(PATIENCE, || async {
        let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (waiting == 2).then_some(()).ok_or(waiting)
    })
    .await;
    asking.shutdown().await;
    drop(ws);
    // The server has heard that nobody is there: their connections are no longer counted.
    eventually(PATIENCE, || async {
        let seats = server.app.limits.connections();
        (seats == 0).then_some(()).ok_or(seats)
    })
    .await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    counted(&acme, "tidewire.audit.events.appended", "agent-7", 2).await;
    server.stop().await;
}

#[tokio::test]
async fn it_says_who_read_what_and_is_for_administrators_alone() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &[WITH_TOKENS, INTERVAL].concat()).await;
    let (acme, beta) = (token::token("acme"), token::token("beta"));
    let (acme, beta) = (server.api.with_token(&acme), server.api.with_token(&beta));
    let (_, key) = create_key(&acme).await;
    let agent = server.api.with_token(&key);
    let mut ws = agent.ws().await;
    ws.subscribe("s", &["deal.won", "deal.x"], "latest").await;
    let mut stream = agent.sse("after=latest&topics=deal.*", None).await.unwrap();
    stream.next().await.unwrap().unwrap();
    agent.page("earliest", "&topics=deal.*").await;
    let subscribed = counted(&acme, "tidewire.audit.events.subscribed", "agent-7", 2).await;
    assert!(
        subscribed
            .iter()
            .any(|event| event["data"]["topics"]["deal.x"] == 1),
        "{subscribed:?}"
    );
    counted(&acme, "tidewire.audit.events.read", "agent-7", 1).await;
    // Whoever reads the audit is in it as well. Others do not see it.
    let reads = audit(&acme, "tidewire.audit.events.read").await;
    assert!(
        reads.iter().any(|event| event["data"]["by"] == "test"),
        "{reads:?}"
    );
    assert_eq!(
        agent.try_get("/v1/events?topics=tidewire.audit.*").await.0,
        403
    );
    let others = audit(&beta, "tidewire.audit.*").await;
    assert!(
        others.iter().all(|event| event["data"]["by"] == "test"),
        "{others:?}"
    );
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn it_is_written_before_a_server_stops_and_after_an_outage() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &[WITH_TOKENS, INTERVAL].concat()).await;
    let api = server.api.with_token(&token::token("acme"));
    api.append(&json!({"topic": "deal.won"})).await;
    counted(&api, "tidewire.audit.events.appended", "test", 1).await;
    let cursor = api.page("latest", "").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    proxy.cut();
    let reads = eventually(PATIENCE, || async {
        let (status, _) = api
            .try_get(&format!("/v1/events?after={cursor}&topics=deal.during"))
            .await;
        (status == 200).then_some(()).ok_or(status)
    });
    reads.await;
    proxy.restore();
    let read = "SELECT count(*) FROM tidewire.events WHERE topic = 'tidewire.audit.events.read' AND data #> '{topics,deal.during}' IS NOT NULL";
    let client = db.connect().await;
    eventually(Duration::from_secs(30), || async {
        let count: i64 = client.query_one(read, &[]).await.unwrap().get(0);
        (count > 0).then_some(()).ok_or(count)
    })
    .await;
    api.append(&json!({"topic": "deal.last"})).await;
    server.stop().await;
    let last = "SELECT count(*) FROM tidewire.events WHERE topic = 'tidewire.audit.events.appended' AND data #> '{topics,deal.last}' IS NOT NULL";
    let count: i64 = client.query_one(last, &[]).await.unwrap().get(0);
    assert_eq!(count, 1, "written before it stopped");
}

/// Topics of the log's own that the sources name.
fn own_topics(folder: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            own_topics(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        // Whole literals, in either language.
        for literal in text.split(['"', '\'']) {
            let is_topic = literal.split('.').all(|part| {
                !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            });
            let is_own = ["tidewire.audit.", "tidewire.watch."]
                .iter()
                .any(|own| literal.starts_with(own));
            if is_topic && is_own {
                found.insert(literal.to_owned());
            }
        }
    }
}

#[test]
fn each_topic_of_the_logs_own_stands_in_the_contract() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = std::fs::read_to_string(root.join("docs/PROTOCOL.md")).unwrap();
    let mut topics = std::collections::BTreeSet::new();
    own_topics(&root.join("src"), &mut topics);
    own_topics(&root.join("sql/functions"), &mut topics);
    assert!(topics.len() > 20, "{topics:?}");
    let unknown: Vec<_> = topics
        .iter()
        .filter(|topic| !contract.contains(&format!("`{topic}`")))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
