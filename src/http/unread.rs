//! Bodies that a handler leaves unread, because it refuses the request.
//!
//! # Invariants
//! - Whoever is still sending gets the answer: to close with bytes unread would reset the connection, and with it what was
//!   answered. So they are read and dropped, up to a bound.
//! - Who asked with `Expect: 100-continue` and is refused is not told to go on.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::app::App;
use crate::event::limits::{UNREAD_BYTES_MAX, UNREAD_TIMEOUT};
use crate::tasks::Tasks;

/// Sees to what the rest of the router leaves of a body.
pub async fn drain(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let incoming = Incoming {
        pieces: Some(body.into_data_stream()),
        is_wanted: !parts.headers.contains_key(header::EXPECT),
        tasks: app.tasks.clone(),
    };
    let body = Body::from_stream(incoming);
    next.run(Request::from_parts(parts, body)).await
}

/// A body that is read to its end, whoever drops it.
struct Incoming {
    /// Absent once it has ended.
    pieces: Option<BodyDataStream>,
    /// Whether the client sends it unasked, or has been asked.
    is_wanted: bool,
    tasks: Tasks,
}

impl Stream for Incoming {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.is_wanted = true;
        let Some(pieces) = &mut self.pieces else {
            return Poll::Ready(None);
        };
        let next = pieces.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.pieces = None;
        }
        next
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(mut pieces) = self.pieces.take().filter(|_| self.is_wanted) else {
            return;
        };
        self.tasks.spawn_until_stop(async move {
            let reading = async {
                let mut left = UNREAD_BYTES_MAX;
                while let Some(Ok(piece)) = pieces.next().await {
                    let Some(less) = left.checked_sub(piece.len()) else {
                        return;
                    };
                    left = less;
                }
            };
            let _: Result<(), _> = tokio::time::timeout(UNREAD_TIMEOUT, reading).await;
        });
    }
}
