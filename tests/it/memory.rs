//! What clients make the server hold before they have asked for anything: it is bounded in total, and given back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::event::{Filter, Tenant};
use tidewire::feed::{Follower, Start};

use crate::support::{Process, Server, TestDb, eventually, raw};

#[tokio::test]
async fn a_socket_names_so_many_topics_and_subjects_and_no_more() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    let mut ws = server.api.ws().await;
    let before = raw::resident_bytes(server.pid());
    let topics: Vec<String> = (0..100).map(|n| format!("t{n}.x")).collect();
    let mut begun = Vec::new();
    for id in 0..100 {
        let id = id.to_string();
        let subjects: Vec<String> = (0..1_000).map(|n| format!("{id}-{n}")).collect();
        let wanted = json!({"type": "subscribe", "id": id, "topics": topics, "subjects": subjects});
        ws.send(wanted).await;
        loop {
            let frame = ws.next().await.unwrap().unwrap();
            match frame["type"].as_str().unwrap() {
                "subscribed" => begun.push(id.clone()),
                "error" => assert_eq!(frame["code"], "invalid-parameter", "{frame}"),
                _ => continue,
            }
            break;
        }
    }
    let grown = raw::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB for {}", grown >> 20, begun.len());
    assert_eq!(begun.len(), 9, "10,000 names are 9 times 1,100 and a rest");
    // Who unsubscribes has room again.
    ws.send(json!({"type": "unsubscribe", "id": begun[0]}))
        .await;
    ws.until("unsubscribed").await;
    ws.send(json!({"type": "subscribe", "id": "again", "topics": topics}))
        .await;
    assert_eq!(ws.until("subscribed").await["id"], "again");
}

#[tokio::test]
async fn who_takes_what_there_is_enters_no_index_before_it_waits_and_misses_nothing() {
    let db = TestDb::new().await;
    let server = Server::start(&db).await;
    let readers = || server.app.hub.size().0;
    let (tenant, filter) = (Tenant::parse("dev").unwrap(), Filter::everything());
    let hub = &server.app.hub;
    let look = Follower::look(hub, tenant, Arc::new(filter), Start::Latest);
    let mut follower = look.await.unwrap();
    assert!(follower.read(10).await.unwrap().is_caught_up);
    assert_eq!(readers(), 0);
    drop(follower.turn());
    // Before it waits, and while it does.
    for id in ["before", "during"] {
        let append = json!({"id": id, "topic": "a"});
        let taken = if id == "before" {
            let stored = server.api.append(&append).await;
            let cursor = stored[0]["cursor"].as_str().unwrap().to_owned();
            server
                .api
                .page("latest", &format!("&at_least={cursor}"))
                .await;
            follower.next(10).await.unwrap()
        } else {
            let write = async {
                eventually(Duration::from_secs(10), async || match readers() {
                    1 => Ok(()),
                    other => Err(other),
                })
                .await;
                server.api.append(&append).await
            };
            tokio::join!(follower.next(10), write).0.unwrap()
        };
        let event: Value = serde_json::from_slice(&taken.events[0].json).unwrap();
        assert_eq!((taken.events.len(), &event["id"]), (1, &json!(id)));
    }
    drop(follower);
    assert_eq!(readers(), 0);
    server.stop().await;
}
