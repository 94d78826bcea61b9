//! A connection that does not wait for ever: who says nothing at the start, or does not complete a message of a WebSocket,
//! is cut; for who takes nothing see `wire`.
//!
//! # Invariants
//! - A clock runs only while something is waited for: idle streams, and sockets that are heard of, cost none.
//! - What is read of a WebSocket counts until its message is complete.
//! - Whose WebSocket is closed while sending gets to read why: what still comes is read and dropped, up to a bound.
//! - The wait for a request's head is the HTTP server's; before it knows which HTTP is spoken, it has no clock.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Sleep;

use super::serve::Patience;
use super::unfinished::{Refusal, Unfinished};
use super::wire::{Stream, clock};
use crate::event::limits::{UNREAD_BYTES_MAX, UNREAD_TIMEOUT};
use crate::tasks::Tasks;

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub struct Line {
    /// There until the line is dropped.
    stream: Option<Stream>,
    patience: Patience,
    message: Unfinished,
    /// Runs while a message is not complete and nothing more of it is there.
    late: Option<Pin<Box<Sleep>>>,
    tasks: Tasks,
    /// Runs until the first bytes say which HTTP is spoken.
    beginning: Option<Pin<Box<Sleep>>>,
    /// What was read of the preface so far.
    preface: usize,
}

impl Line {
    /// A new connection; `message` is what its WebSocket has not been given, should it become one.
    #[must_use]
    pub fn new(stream: Stream, patience: Patience, message: Unfinished, tasks: Tasks) -> Self {
        Self {
            stream: Some(stream),
            patience,
            message,
            late: None,
            tasks,
            beginning: Some(clock(patience.head)),
            preface: 0,
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

    /// Counts what was read of a message, and cuts the line if there is no room for it or it is late.
    fn count(
        &mut self,
        read: Poll<io::Result<()>>,
        length: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.message.is_begun() {
            self.late = None;
        }
        if !self.message.read(length) {
            self.message.refuse(Refusal::Full);
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        if read.is_pending() && self.message.is_begun() && self.late.is_none() {
            self.late = Some(clock(self.patience.message));
        }
        if let Some(late) = &mut self.late
            && late.as_mut().poll(context).is_ready()
        {
            self.message.refuse(Refusal::Late);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        if !self.message.is_closed() {
            return;
        }
        // To close with bytes unread would reset the connection, and with it the close code that was sent.
        self.tasks.spawn_until_stop(async move {
            let reading = async {
                stream.shutdown().await?;
                let most = u64::try_from(UNREAD_BYTES_MAX).unwrap_or(u64::MAX);
                tokio::io::copy(&mut stream.take(most), &mut tokio::io::sink()).await
            };
            let _ = tokio::time::timeout(UNREAD_TIMEOUT, reading).await;
        });
    }
}

/// Does something with the stream of a line, which is there.
fn poll<T>(
    stream: &mut Option<Stream>,
    poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    match stream {
        Some(stream) => poll(Pin::new(stream)),
        None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &mut *self;
        let before = buffer.filled().len();
        let read = poll(&mut line.stream, |stream| stream.poll_read(context, buffer));
        if let Some(beginning) = &mut line.beginning {
            if read.is_ready() {
                line.heard(buffer.filled().get(before..).unwrap_or_default());
            } else if beginning.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let length = buffer.filled().len().saturating_sub(before);
        line.count(read, length, context)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll(&mut self.stream, |stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll(&mut self.stream, |stream| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll(&mut self.stream, |stream| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll(&mut self.stream, |stream| stream.poll_shutdown(context))
    }
}
