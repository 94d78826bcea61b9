//! What clients make the server hold before they have asked for anything: it is bounded in total, and given back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::event::{Filter, Tenant};
use tidewire::feed::{Follower, Start};

use crate::support::{Server, TestDb, eventually};

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
