//! Serves the connections that the entrance takes in.
//!
//! # Invariants
//! - No connection waits for ever: for a head, for a body, or for a client that takes what it asked for.
//! - When the server drains nothing more is taken in, and connections end after the answer that is under way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener as _;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tower::Layer as _;

use super::entrance::Entrance;
use super::line::Line;
use super::unfinished::Unfinished;
use crate::event::limits::{
    BODY_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, LINE_IDLE_TIMEOUT, MESSAGE_TIMEOUT, STREAMS_MAX,
};
use crate::tasks::Tasks;

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a request's head.
    pub head: Duration,
    /// For the next part of a body, or for it to take what is written.
    pub idle: Duration,
    /// For a whole body, or for a line of a streamed one.
    pub body: Duration,
    /// For a message of a WebSocket.
    pub message: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: HEAD_TIMEOUT,
            idle: LINE_IDLE_TIMEOUT,
            body: BODY_TIMEOUT,
            message: MESSAGE_TIMEOUT,
        }
    }
}

/// Serves until `tasks` stop, and then for at most `drain`.
pub async fn serve(
    mut entrance: Entrance,
    router: Router,
    patience: Patience,
    tasks: &Tasks,
    drain: Duration,
) {
    let router = router.layer(Extension(patience));
    let builder = Arc::new(builder(patience));
    let connections = tasks.child();
    let stop = connections.token().clone();
    while let Some((stream, _)) = stop.run_until_cancelled(entrance.accept()).await {
        let message = Unfinished::default();
        let line = Line::new(stream, patience, message.clone(), connections.clone());
        let line = TokioIo::new(line);
        // Whoever upgrades the connection tells its line what has been handed on.
        let service = Extension(message).layer(router.clone());
        let service = TowerToHyperService::new(service);
        let (builder, stop) = (Arc::clone(&builder), stop.clone());
        connections.spawn(async move {
            let mut serving = pin!(builder.serve_connection_with_upgrades(line, service));
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(entrance);
    connections.stop(drain).await;
}

fn builder(patience: Patience) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(patience.head)
        .keep_alive_timeout(patience.head);
    builder
}
