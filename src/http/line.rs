//! A connection that does not wait for ever: who says nothing at the start, or takes nothing of what is written, is cut.
//!
//! # Invariants
//! - A clock runs only while something is waited for: idle streams, and sockets that are heard of, cost none.
//! - The wait for a request's head is the HTTP server's; before it knows which HTTP is spoken, it has no clock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any connection lives.
const FAR: Duration = Duration::from_hours(24 * 365);

/// See the module.
#[derive(Debug)]
pub struct Line<S> {
    stream: S,
    idle: Duration,
    /// Runs until the first bytes say which HTTP is spoken.
    beginning: Option<Pin<Box<Sleep>>>,
    /// What was read of the preface so far.
    preface: usize,
    /// Runs while nothing is taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Line<S> {
    /// A new connection, cut if it has not begun after `head` or takes nothing for `idle`.
    #[must_use]
    pub fn new(stream: S, head: Duration, idle: Duration) -> Self {
        Self {
            stream,
            idle,
            beginning: Some(clock(head)),
            preface: 0,
            stalled: None,
        }
    }

    /// Stops the first clock once it is clear what is spoken.
    fn heard(&mut self, bytes: &[u8]) {
        let rest = PREFACE.get(self.preface..).unwrap_or_default();
        self.preface = self.preface.saturating_add(bytes.len());
        let is_unclear = bytes.len() < rest.len() && rest.starts_with(bytes);
        if bytes.is_empty() || !is_unclear {
            self.beginning = None;
        }
    }

    /// Cuts the line if `written` has been pending for too long.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let idle = self.idle;
        let stalled = self.stalled.get_or_insert_with(|| clock(idle));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn clock(duration: Duration) -> Pin<Box<Sleep>> {
    let now = Instant::now();
    let end = now.checked_add(duration.min(FAR)).unwrap_or(now);
    Box::pin(sleep_until(end))
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut line.stream).poll_read(context, buffer);
        if let Some(beginning) = &mut line.beginning {
            if read.is_ready() {
                line.heard(buffer.filled().get(before..).unwrap_or_default());
            } else if beginning.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
