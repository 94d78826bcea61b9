//! A body that is not held for ever: over HTTP/2 a client may open a stream, ask for a page and never take it, which no
//! timeout of the connection notices.
//!
//! # Invariants
//! - What is not taken in time is dropped, whether the connection ever asks for it or not; the client sees a broken answer,
//!   never a short one that looks whole.
//! - Beside what is held here the connection has a piece at a time.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::tasks::Tasks;

/// Bytes that the connection gets at once. Copied: a slice would keep the whole.
const PIECE_BYTES: usize = 16 * 1024;

/// A body of these bytes, dropped if the client takes nothing for `idle`.
pub fn body(bytes: Bytes, idle: Duration, tasks: &Tasks) -> Body {
    let left = bytes.len();
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tasks.spawn(async move {
        for piece in bytes.chunks(PIECE_BYTES) {
            let sending = sender.send(Bytes::copy_from_slice(piece));
            if !matches!(tokio::time::timeout(idle, sending).await, Ok(Ok(()))) {
                return;
            }
        }
    });
    let pieces = stream::unfold((receiver, left), |(mut receiver, left)| async move {
        match receiver.recv().await {
            Some(piece) => {
                let left = left.saturating_sub(piece.len());
                Some((Ok(piece), (receiver, left)))
            }
            None if left > 0 => Some((Err(io::ErrorKind::TimedOut.into()), (receiver, 0))),
            None => None::<(io::Result<Bytes>, _)>,
        }
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Bytes whose life can be seen.
    fn page(length: usize) -> (Bytes, Arc<Vec<u8>>) {
        #[derive(Debug)]
        struct Owner(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let bytes = Arc::new(vec![b'x'; length]);
        (Bytes::from_owner(Owner(Arc::clone(&bytes))), bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped_and_what_is_taken_is_whole() {
        let (tasks, idle) = (Tasks::new(), Duration::from_mins(1));
        let (bytes, life) = page(1 << 20);
        let held = body(bytes, idle, &tasks);
        assert_eq!(Arc::strong_count(&life), 2);
        assert!(tasks.stop(Duration::from_mins(2)).await);
        assert_eq!(Arc::strong_count(&life), 1, "dropped, though nobody asked");
        let broken = axum::body::to_bytes(held, usize::MAX).await;
        assert!(broken.is_err(), "never a short page");
        for length in [0, 1, PIECE_BYTES, 1 << 20] {
            let (bytes, life) = page(length);
            let held = body(bytes, idle, &Tasks::new());
            let taken = axum::body::to_bytes(held, usize::MAX).await.unwrap();
            assert_eq!(taken, *life.as_slice());
        }
    }
}
