//! What every handler may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use crate::access::Access;
use crate::event::limits::{BODIES_BYTES_MAX, MESSAGES_BYTES_MAX};
use crate::feed::Hub;
use crate::http::audit::Audit;
use crate::http::budget::Budget;
use crate::http::ingest::IngestLimits;
use crate::http::origin::Origins;
use crate::log::{Appender, History};
use crate::tasks::Tasks;

/// The floors below, and this floor's own counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
#[derive(Debug)]
pub struct Inner {
    /// Readers.
    pub hub: Arc<Hub>,
    /// Writers.
    pub appender: Appender,
    /// History, for status.
    pub history: History,
    /// Who may.
    pub access: Access,
    /// From which pages.
    pub origins: Origins,
    /// Bounds of what is taken in.
    pub ingest: IngestLimits,
    /// What is held of request bodies.
    pub bodies: Budget,
    /// What is held of messages that are not complete.
    pub messages: Budget,
    /// Ends when the server drains.
    pub tasks: Tasks,
    /// Who wrote and read what.
    pub audit: Audit,
    /// When the server began.
    pub started: Instant,
    connections_max: usize,
    connections: AtomicUsize,
    /// Signalled when a seat becomes free.
    freed: Notify,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A place among the open reader connections; given back when dropped.
#[derive(Debug)]
pub struct Seat(App);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl App {
    /// Puts the floors together.
    #[must_use]
    pub fn new(
        (hub, appender, history): (Arc<Hub>, Appender, History),
        access: Access,
        origins: Origins,
        ingest: IngestLimits,
        connections_max: usize,
        audit: Audit,
        tasks: Tasks,
    ) -> Self {
        let connections = AtomicUsize::new(0);
        let started = Instant::now();
        Self(Arc::new(Inner {
            hub,
            appender,
            history,
            access,
            origins,
            ingest,
            bodies: Budget::new(BODIES_BYTES_MAX),
            messages: Budget::new(MESSAGES_BYTES_MAX),
            tasks,
            audit,
            started,
            connections_max,
            connections,
            freed: Notify::new(),
        }))
    }

    /// A seat for a reader connection, if one is free.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        let taken = self.connections.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(self.clone());
        (taken < self.connections_max).then_some(seat)
    }

    /// Waits until every reader has gone.
    pub async fn all_seats_free(&self) {
        while self.connections() > 0 {
            self.freed.notified().await;
        }
    }

    /// Open reader connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}
