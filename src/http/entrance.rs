//! Takes in connections one at a time.
//!
//! # Invariants
//! - Between two connections everybody who has something to do gets to do it: a thousand clients that come back at once
//!   do not stand in the queue before those who are being served.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::tasks::pause;

/// Connections that wait to be taken in. The kernel drops the first packet of those beyond, whose clients try again a
/// second later; the usual 128 are too few for a thousand readers that come back at once. `net.core.somaxconn` bounds it.
const BACKLOG: u32 = 4_096;

/// Listens on `address`.
///
/// # Errors
/// If the address is taken, forbidden or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// So many are taken in without a rest, some ten thousand a second.
const BURST: u32 = 16;
const REST: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub struct Entrance {
    listener: TcpListener,
    since_rest: u32,
}

impl Entrance {
    /// The entrance of a listener.
    #[must_use]
    pub const fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            since_rest: 0,
        }
    }
}

impl Listener for Entrance {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if self.since_rest >= BURST {
            self.since_rest = 0;
            pause(REST).await;
        }
        let mut accepting = pin!(Listener::accept(&mut self.listener));
        let (stream, address) = if let Poll::Ready(waiting) = futures_util::poll!(&mut accepting) {
            self.since_rest = self.since_rest.saturating_add(1);
            tokio::task::yield_now().await;
            waiting
        } else {
            self.since_rest = 0;
            accepting.await
        };
        // Small frames must not wait for each other.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
