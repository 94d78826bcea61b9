//! A TCP proxy whose line can be cut, restored, and held: open, but nothing passes. The silent line is what finds
//! missing pings.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    Held,
    Cut,
}

/// A proxy before one address.
pub struct Proxy {
    /// Where to connect instead.
    pub address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// A proxy before `target`, open.
    pub async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(watch::channel(Line::Open).0);
        let mut running = JoinSet::new();
        let state = Arc::clone(&line);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, state) = (target.clone(), Arc::clone(&state));
                connections.spawn(async move { forward(client, target, state).await });
            }
        });
        Self {
            address,
            line,
            _running: running,
        }
    }

    /// The proxy before the database of a `postgres://` URL, and the URL through it.
    pub async fn before_database(url: &str) -> (Self, String) {
        let mut url = url::Url::parse(url).unwrap();
        let proxy = Self::before(format!(
            "{}:{}",
            url.host_str().unwrap(),
            url.port().unwrap_or(5432)
        ))
        .await;
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        (proxy, url.to_string())
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Keeps every connection, and takes new ones, but forwards nothing.
    pub fn hold(&self) {
        self.line.send_replace(Line::Held);
    }

    /// Forwards again.
    pub fn restore(&self) {
        self.line.send_replace(Line::Open);
    }
}

async fn forward(client: TcpStream, target: String, state: Arc<watch::Sender<Line>>) {
    let mut cut = state.subscribe();
    if *cut.borrow() == Line::Cut {
        return;
    }
    let _ = state.subscribe().wait_for(|line| *line != Line::Held).await;
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(client_read, server_write, &state) => {}
        () = pump(server_read, client_write, &state) => {}
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: &watch::Sender<Line>,
) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut line = state.subscribe();
    loop {
        let Ok(count) = from.read(&mut buffer).await else {
            return;
        };
        if count == 0 {
            return;
        }
        // What was read while the line is held stays here.
        if line.wait_for(|line| *line != Line::Held).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
