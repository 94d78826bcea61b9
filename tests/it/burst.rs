//! A thousand readers that come back at the same moment, as after a restart.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::client::Ws;
use crate::support::{Process, TestDb};

const READERS: usize = 1_200;
/// The kernel drops what does not fit into the queue of a listener; the client tries again after a second.
const TRIED_AGAIN: Duration = Duration::from_millis(900);

#[tokio::test]
async fn a_thousand_connections_at_once_are_all_taken_in() {
    let db = TestDb::new().await;
    let server = Process::start(&db.url, &["--log", "warn"]).await;
    let address = server.address();
    let connects = (0..READERS).map(|_| async {
        let began = Instant::now();
        let stream = TcpStream::connect(&address).await.expect("not refused");
        (stream, began.elapsed())
    });
    let (streams, took): (Vec<_>, Vec<_>) = join_all(connects).await.into_iter().unzip();
    let slowest = took.iter().max().unwrap();
    assert!(*slowest < TRIED_AGAIN, "{slowest:?}");
    // All ask for a socket at once, too.
    let url = format!("ws://{address}/v1/ws");
    let upgrades = streams.into_iter().map(|stream| async {
        let stream = tokio_tungstenite::MaybeTlsStream::Plain(stream);
        let upgrade = tokio_tungstenite::client_async(&url, stream);
        let (socket, _) = upgrade.await.expect("a socket");
        let mut ws = Ws { socket };
        ws.until("welcome").await;
        ws
    });
    let opening = tokio::time::timeout(Duration::from_secs(20), join_all(upgrades));
    let mut sockets = opening.await.expect("all are welcome in time");
    let status = server.api.get("/v1/status").await;
    assert!(
        status.to_string().contains(&READERS.to_string()),
        "{status}"
    );
    let last = sockets.last_mut().unwrap();
    last.send(json!({"type": "ping", "timestamp": 1})).await;
    last.until("pong").await;
}
