//! Ctrl-C and its kin: a command ends in good order.

use std::pin::pin;

use futures_util::future::{Either, select};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::advise::Advise as _;

/// Listens from its creation on; the signals no longer kill.
#[derive(Debug)]
pub struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| {
            signal(kind).or_advise(
                "signals cannot be listened to",
                "Close some programs and run this again.",
            )
        };
        Ok(Self {
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for SIGINT (Ctrl-C) or SIGTERM.
    pub async fn wait(&mut self) {
        select(pin!(self.int.recv()), pin!(self.term.recv())).await;
    }

    /// What `future` comes to, or `None` if the user wants an end first; `future` is dropped then.
    pub async fn or<F: Future>(&mut self, future: F) -> Option<F::Output> {
        match select(pin!(self.wait()), pin!(future)).await {
            Either::Left(_) => None,
            Either::Right((output, _)) => Some(output),
        }
    }
}
