//! Sockets and streams that wait for the database, or for the log, when their credentials are revoked or the server stops.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::given_up::{hold, look, with_history};
use crate::support::client::Ws;
use crate::support::credentials::{admin, revoke};
use crate::support::token::{WITH_TOKENS, with_jti};
use crate::support::{Server, TestDb, eventually};

/// What PROTOCOL promises.
const PROMISED: Duration = Duration::from_secs(1);

/// The code with which it closes, in time and without an event before.
async fn closes(mut ws: Ws) -> u16 {
    let began = Instant::now();
    let code = loop {
        match ws.frame_or_close().await {
            Ok(frame) => assert_eq!(frame["type"], "notice", "{frame}"),
            Err(code) => break code,
        }
    };
    let took = began.elapsed();
    assert!(took < PROMISED, "{took:?}");
    code
}

/// Waits until the socket's page is where somebody is in its way.
async fn reads_history(client: &Client) {
    eventually(Duration::from_secs(10), || async {
        let running = look(client, "FROM tidewire.events").await;
        (!running.is_empty()).then_some(()).ok_or(running)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_reads_history_ends_with_its_credential() {
    let db = TestDb::new().await;
    let (server, client) = with_history(&db).await;
    let loud = admin(&server, "loud");
    let holder = server.api.with_token(&with_jti("loud", "leaving"));
    let mut ws = holder.ws().await;
    let open = hold(&db).await;
    ws.subscribe("s", &["a"], "earliest").await;
    reads_history(&client).await;
    revoke(&loud, &json!({"jti": "leaving"})).await;
    assert_eq!(closes(ws).await, 4401);
    open.batch_execute("ROLLBACK").await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_reads_history_keeps_no_server_from_stopping() {
    let db = TestDb::new().await;
    let (server, client) = with_history(&db).await;
    let mut ws = admin(&server, "loud").ws().await;
    let open = hold(&db).await;
    ws.subscribe("s", &["a"], "earliest").await;
    reads_history(&client).await;
    let (code, ()) = tokio::join!(closes(ws), server.stop());
    assert_eq!(code, 1012);
    open.batch_execute("ROLLBACK").await.unwrap();
}

/// A place that another server may have given: whether it has is waited for, two seconds.
async fn cursor_ahead(db: &TestDb) -> String {
    let client = db.connect().await;
    let append = "SELECT tidewire.append('a', tenant => 'acme')";
    client.batch_execute(append).await.unwrap();
    let ahead = "SELECT tidewire.cursor(max(seq) + 1000, max(recorded_at)) FROM tidewire.events";
    client.query_one(ahead, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_begun_yet_ends_with_the_credential_and_the_server() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let cursor = cursor_ahead(&db).await;
    let subscribe: Value =
        json!({"type": "subscribe", "id": "s", "topics": ["deal.*"], "after": cursor});
    let holder = server.api.with_token(&with_jti("acme", "leaving"));
    let mut ws = holder.ws().await;
    ws.send(subscribe.clone()).await;
    revoke(&acme, &json!({"jti": "leaving"})).await;
    assert_eq!(closes(ws).await, 4401);
    let mut ws = acme.ws().await;
    ws.send(subscribe).await;
    let (code, ()) = tokio::join!(closes(ws), server.stop());
    assert_eq!(code, 1012);
}
