//! HTTP/2 connections on which nothing is asked: their clients answer pings, and would keep them for ever.
//!
//! # Invariants
//! - A connection is idle while no answer is owed on it: a stream that is open, such as server-sent events, keeps it.
//! - It is stuck while answers are there and none is taken: HTTP/2 does not ask for what the client gives no room for. An answer
//!   that has nothing to say yet is not stuck.
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

use super::sessions::Cut;
use super::streams;

/// What is under way on a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<State>);

#[derive(Debug, Default)]
struct State {
    streams: AtomicUsize,
    /// Streams whose answer is being made, or has nothing to say yet.
    working: AtomicUsize,
    /// Counts whatever happens.
    steps: AtomicUsize,
    is_http1: AtomicBool,
    changed: Notify,
}

impl Activity {
    /// Waits until nothing has been under way for `idle`, or nothing of what is there has been taken for `stuck`; for ever on
    /// HTTP/1.
    pub async fn ended(&self, idle: Duration, stuck: Duration) -> End {
        let state = &self.0;
        loop {
            let changed = state.changed.notified();
            let is_owed = state.streams.load(Ordering::Acquire) > 0;
            if state.is_http1.load(Ordering::Acquire) {
                changed.await;
            } else if is_owed {
                let before = state.steps.load(Ordering::Acquire);
                let is_over = tokio::time::timeout(stuck, changed).await.is_err();
                let is_still = state.steps.load(Ordering::Acquire) == before;
                if is_over && is_still && state.working.load(Ordering::Acquire) == 0 {
                    return End::Stuck;
                }
            } else if tokio::time::timeout(idle, changed).await.is_err() {
                return End::Idle;
            }
        }
    }

    fn begin(&self) -> Stream {
        self.0.streams.fetch_add(1, Ordering::AcqRel);
        self.0.working.fetch_add(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
        Stream {
            activity: self.clone(),
            is_working: true,
        }
    }
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing is owed: it may end in peace.
    Idle,
    /// Nothing is taken: what is owed will never be.
    Stuck,
}

/// An answer that is owed, until it is dropped.
#[derive(Debug)]
struct Stream {
    activity: Activity,
    is_working: bool,
}

impl Stream {
    /// Whether what comes next is still to be made, rather than to be taken.
    fn work(&mut self, is_working: bool) {
        let state = &self.activity.0;
        state.steps.fetch_add(1, Ordering::AcqRel);
        if std::mem::replace(&mut self.is_working, is_working) == is_working {
            return;
        }
        if is_working {
            state.working.fetch_add(1, Ordering::AcqRel);
        } else {
            state.working.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.work(false);
        self.activity.0.streams.fetch_sub(1, Ordering::AcqRel);
        self.activity.0.changed.notify_waiters();
    }
}

/// A service that says what is under way, and tells each request what ends its answer.
#[derive(Debug, Clone)]
pub struct Watched<S> {
    inner: S,
    activity: Activity,
    /// The connection's.
    cut: Cut,
}

impl<S> Watched<S> {
    /// `inner`, whose requests are noted in `activity`; `cut` ends their connection.
    pub const fn new(inner: S, activity: Activity, cut: Cut) -> Self {
        Self {
            inner,
            activity,
            cut,
        }
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.version() != Version::HTTP_2 {
            request.extensions_mut().insert(self.cut.clone());
            let state = &self.activity.0;
            if !state.is_http1.swap(true, Ordering::AcqRel) {
                state.changed.notify_waiters();
            }
            return Either::Left(self.inner.call(request));
        }
        request.extensions_mut().insert(streams::own_cut());
        let mut stream = self.activity.begin();
        let answer = self.inner.call(request);
        let kept = async move {
            let answered = answer.await;
            stream.work(false);
            answered.map(|response| response.map(|body| Body::new(Kept { body, stream })))
        };
        Either::Right(kept.boxed())
    }
}

/// A body that is owed until it is dropped.
struct Kept {
    body: Body,
    stream: Stream,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.stream.work(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
