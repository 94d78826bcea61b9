//! By which ways what is written may be held: all that store events over HTTP.

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{PATIENCE, ids, is_open, settings};
use crate::support::token::token;
use crate::support::{Proxy, Server, TestDb, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_agents_is_held_as_any_other() {
    let db = TestDb::new().await;
    let (proxy, url) = Proxy::before_database(&db.url).await;
    let server = Server::start_with(&url, &settings()).await;
    let acme = server.api.with_token(&token("acme"));
    acme.append(&json!({"topic": "a.before"})).await;
    proxy.cut();
    is_open(&server).await;
    let ways = [
        (Method::PUT, "/v1/agents/one/state", "agent.state.replaced"),
        (Method::PATCH, "/v1/agents/one/state", "agent.state.updated"),
        (
            Method::POST,
            "/v1/agents/one/commands",
            "agent.command.requested",
        ),
    ];
    let mut held = JoinSet::new();
    for (method, path, topic) in &ways {
        let body = json!({"action": "pause"});
        let request = || acme.request(method.clone(), path).json(&body);
        let refused = request().send().await.unwrap();
        assert_eq!(refused.status(), 503, "{topic}");
        let late = request().header("prefer", "wait=1").send().await.unwrap();
        assert_eq!(late.status(), 503, "{topic}");
        let waits = request().header("prefer", "wait=60");
        held.spawn(async move { waits.send().await.unwrap().status().as_u16() });
    }
    eventually(PATIENCE, || async {
        let (waiting, _) = server.app.appender.waiting();
        (waiting >= 3).then_some(()).ok_or(waiting)
    })
    .await;
    proxy.restore();
    assert_eq!(held.join_all().await, [201; 3]);
    for (_, _, topic) in ways {
        assert_eq!(ids(&db, topic).await.len(), 1, "{topic}");
    }
    server.stop().await;
}
