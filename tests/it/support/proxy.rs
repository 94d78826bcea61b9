//! A TCP proxy whose line can be cut, held (open, but nothing passes), slowed and reset. The silent line is what finds missing
//! pings, the slow one what finds time limits that are too tight, the reset one who takes an error for an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewire::tasks::pause;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What passes of a slow line at once: so long a part of a second.
const PIECES_A_SECOND: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    /// Each chunk takes so long in each direction, and each direction takes so many bytes a second.
    Slow(Duration, Option<usize>),
    Held,
    Cut,
}

/// What the connections look at.
#[derive(Debug, Clone, Copy)]
struct State {
    line: Line,
    /// Connections from before the last reset are gone.
    resets: usize,
}

/// A proxy before one address.
pub struct Proxy {
    /// Where to connect instead.
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// A proxy before `target`, open.
    pub async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, resets) = (Line::Open, 0);
        let state = Arc::new(watch::channel(State { line, resets }).0);
        let mut running = JoinSet::new();
        let looked_at = Arc::clone(&state);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, state) = (target.clone(), Arc::clone(&looked_at));
                connections.spawn(async move { forward(client, target, state).await });
            }
        });
        Self {
            address,
            state,
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
        self.set(Line::Cut);
    }

    /// Keeps every connection, and takes new ones, but forwards nothing.
    pub fn hold(&self) {
        self.set(Line::Held);
    }

    /// Forwards each chunk after so long, in each direction.
    pub fn slow(&self, latency: Duration) {
        self.set(Line::Slow(latency, None));
    }

    /// Forwards so many bytes a second, over each connection and in each direction.
    pub fn narrow(&self, bytes_a_second: usize) {
        self.set(Line::Slow(Duration::ZERO, Some(bytes_a_second)));
    }

    /// Ends every connection by a reset (RST), on both sides at once; new ones are taken.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Forwards again.
    pub fn restore(&self) {
        self.set(Line::Open);
    }

    fn set(&self, line: Line) {
        self.state.send_modify(|state| state.line = line);
    }
}

async fn forward(mut client: TcpStream, target: String, state: Arc<watch::Sender<State>>) {
    let mut looking = state.subscribe();
    if looking.borrow().line == Line::Cut {
        return;
    }
    let resets = looking.borrow().resets;
    let _ = looking.wait_for(|state| state.line != Line::Held).await;
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let is_over = |state: &State| state.line == Line::Cut || state.resets != resets;
    {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            () = pump(client_read, server_write, &state) => {}
            () = pump(server_read, client_write, &state) => {}
            _ = looking.wait_for(is_over) => {}
        }
    }
    if looking.borrow().resets != resets {
        for end in [&client, &server] {
            end.set_zero_linger().unwrap();
        }
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: &watch::Sender<State>) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut looking = state.subscribe();
    loop {
        let Ok(count) = from.read(&mut buffer).await else {
            return;
        };
        if count == 0 {
            return;
        }
        let line = looking.borrow().line;
        if let Line::Slow(latency, _) = line {
            pause(latency).await;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            // What was read while the line is held stays here.
            let passing = looking.wait_for(|state| state.line != Line::Held).await;
            let bytes_a_second = match passing.map(|state| state.line) {
                Ok(Line::Slow(_, bytes_a_second)) => bytes_a_second,
                Ok(_) => None,
                Err(_) => return,
            };
            let most = bytes_a_second.map_or(count, |most| (most / PIECES_A_SECOND).max(1));
            let (piece, later) = rest.split_at(most.min(rest.len()));
            if to.write_all(piece).await.is_err() {
                return;
            }
            if let Some(bytes_a_second) = bytes_a_second {
                let took = Duration::from_secs(1) * u32::try_from(piece.len()).unwrap();
                pause(took / u32::try_from(bytes_a_second).unwrap()).await;
            }
            rest = later;
        }
    }
}
