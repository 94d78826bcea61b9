//! Serves the connections that the entrance takes in.
//!
//! # Invariants
//! - No connection waits for ever: for a handshake, for a head, for a body, or for a client that takes what it asked for.
//! - A handshake holds up its own connection only.
//! - When the server drains nothing more is taken in, and connections end, each at its own moment, after the answer that is under
//!   way.

use std::pin::pin;
use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::serve::Listener as _;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tower::Layer as _;
use tower_http::set_header::SetResponseHeaderLayer;

use super::drain::{Departure, Drain};
use super::entrance::Entrance;
use super::idle::{Activity, End, Watched};
use super::line::Line;
use super::sessions::Cut;
use super::streams::Streams;
use super::tls::{Encrypted, Tls};
use super::unfinished::Unfinished;
use super::wire::{Stream, Wire};
use crate::event::limits::{
    BODY_TIMEOUT, CLOSE_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, LINE_IDLE_TIMEOUT, MESSAGE_TIMEOUT,
    STREAMS_MAX,
};
use crate::tasks::Tasks;

/// What browsers are told who came by TLS: for a year, never without it.
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a handshake, and for a request's head.
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

/// Takes connections in until `drain` begins, serves them until `tasks` stop, and then for at most `deadline`; by TLS alone if
/// there is one.
pub async fn serve(
    mut entrance: Entrance,
    tls: Option<Tls>,
    router: Router,
    patience: Patience,
    (tasks, drain): (&Tasks, &Drain),
    deadline: Duration,
) {
    let mut router = router.layer(Extension(patience));
    if tls.is_some() {
        let header = SetResponseHeaderLayer::overriding(
            header::STRICT_TRANSPORT_SECURITY,
            TRANSPORT_SECURITY,
        );
        router = router.layer(Extension(Encrypted)).layer(header);
    }
    let connections = tasks.child();
    let stop = connections.token().clone();
    while let Some((stream, _)) = drain.run_until_begun(entrance.accept()).await {
        let message = Unfinished::default();
        // Whoever upgrades the connection tells its line what has been handed on.
        let service = Extension(message.clone()).layer(router.clone());
        let (cut, activity) = (Cut::default(), Activity::default());
        let builder = builder(patience);
        let service = Watched::new(service, activity.clone(), cut.clone());
        let service = TowerToHyperService::new(service);
        let stop = stop.clone();
        let (tls, group) = (tls.clone(), connections.clone());
        let departure = drain.departure();
        connections.spawn(async move {
            let opening = stop.run_until_cancelled(open(stream, tls, patience));
            let Some(Some(stream)) = opening.await else {
                return;
            };
            let line = TokioIo::new(Line::new(stream, patience, message, group));
            let mut serving = pin!(builder.serve_connection_with_upgrades(line, service));
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                // Whoever takes something may still hear why.
                () = cut.asked() => {
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, serving).await;
                    return;
                }
                end = ended_by(&departure, &activity, patience) => {
                    if end == Some(End::Stuck) {
                        return;
                    }
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    // Whoever comes now is refused by the kernel, and finds another server.
    drop(entrance);
    tasks.stopping().await;
    connections.stop(deadline).await;
}

/// Ends when a connection is to end: with the server, or because nothing is asked on it, or nothing taken.
async fn ended_by(departure: &Departure, activity: &Activity, patience: Patience) -> Option<End> {
    // A page that is not taken ends by itself first, and its stream alone.
    let stuck = patience.idle.saturating_mul(2);
    let ended = activity.ended(patience.head, stuck);
    departure.run(ended).await
}

/// What a line runs over; `None` if a handshake fails or takes too long.
async fn open(socket: TcpStream, tls: Option<Tls>, patience: Patience) -> Option<Stream> {
    let wire = Wire::new(socket, patience.idle);
    let Some(tls) = tls else {
        return Some(Either::Left(wire));
    };
    match tokio::time::timeout(patience.head, tls.accept(wire)).await {
        Ok(Ok(stream)) => Some(Either::Right(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

fn builder(patience: Patience) -> Builder<Streams> {
    let mut builder = Builder::new(Streams);
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
