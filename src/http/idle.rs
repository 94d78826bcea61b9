//! HTTP/2 connections on which nothing is asked: their clients answer pings, and would keep them for ever.
//!
//! # Invariants
//! - A connection is idle while no answer is owed on it: a stream that is open, such as server-sent events, keeps it.
//! - HTTP/1 is not looked at: there the wait for a request's head has a bound of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response, Version};
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, FutureExt as _};
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tower::Service;

/// What is under way on a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<State>);

#[derive(Debug, Default)]
struct State {
    streams: AtomicUsize,
    is_http1: AtomicBool,
    changed: Notify,
}

impl Activity {
    /// Waits until nothing has been under way for `patience`; for ever on HTTP/1.
    pub async fn idle(&self, patience: Duration) {
        loop {
            let changed = self.0.changed.notified();
            let is_busy = self.0.streams.load(Ordering::Acquire) > 0;
            if is_busy || self.0.is_http1.load(Ordering::Acquire) {
                changed.await;
            } else if tokio::time::timeout(patience, changed).await.is_err() {
                return;
            }
        }
    }

    fn begin(&self) -> Stream {
        self.0.streams.fetch_add(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
        Stream(self.clone())
    }
}

/// An answer that is owed, until it is dropped.
#[derive(Debug)]
struct Stream(Activity);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::AcqRel);
        self.0.0.changed.notify_waiters();
    }
}

/// A service that says what is under way.
#[derive(Debug, Clone)]
pub struct Watched<S> {
    inner: S,
    activity: Activity,
}

impl<S> Watched<S> {
    /// `inner`, whose requests are noted in `activity`.
    pub const fn new(inner: S, activity: Activity) -> Self {
        Self { inner, activity }
    }
}

impl<S, B> Service<Request<B>> for Watched<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.version() != Version::HTTP_2 {
            let state = &self.activity.0;
            if !state.is_http1.swap(true, Ordering::AcqRel) {
                state.changed.notify_waiters();
            }
            return Either::Left(self.inner.call(request));
        }
        let stream = self.activity.begin();
        let answer = self.inner.call(request);
        let kept = async move {
            let keep = |body| {
                Body::new(Kept {
                    body,
                    _stream: stream,
                })
            };
            answer.await.map(|response| response.map(keep))
        };
        Either::Right(kept.boxed())
    }
}

/// A body that is owed until it is dropped.
struct Kept {
    body: Body,
    _stream: Stream,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
