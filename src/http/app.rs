//! What every handler may use.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::access::limits::{Allowances, Place};
use crate::access::{Access, Limits};
use crate::event::limits::{BODIES_BYTES_MAX, MESSAGES_BYTES_MAX};
use crate::feed::Hub;
use crate::http::admission::Admission;
use crate::http::audit::Audit;
use crate::http::budget::Budget;
use crate::http::checks::Checks;
use crate::http::in_force::InForce;
use crate::http::ingest::IngestLimits;
use crate::http::origin::Origins;
use crate::http::problem::Problem;
use crate::http::serve::Patience;
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
    /// Where events are checked against schemas.
    pub checks: Checks,
    /// Ends when the server drains.
    pub tasks: Tasks,
    /// Who wrote and read what.
    pub audit: Audit,
    /// When the server began.
    pub started: Instant,
    /// What tenants and credentials may ask for.
    pub limits: Limits,
    /// All limits in force, as they are shown.
    pub in_force: serde_json::Value,
    /// Signalled when a seat becomes free.
    freed: Notify,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    app: App,
    place: Option<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.place = None;
        self.app.freed.notify_one();
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
        allowances: &Allowances,
        audit: Audit,
        tasks: Tasks,
    ) -> Self {
        let started = Instant::now();
        let limits = Limits::new(allowances);
        let in_force = InForce::new(&ingest, &Patience::default(), &limits, allowances);
        let in_force = serde_json::to_value(in_force).unwrap_or_default();
        Self(Arc::new(Inner {
            hub,
            appender,
            history,
            access,
            origins,
            ingest,
            bodies: Budget::new(BODIES_BYTES_MAX),
            messages: Budget::new(MESSAGES_BYTES_MAX),
            checks: Checks::default(),
            tasks,
            audit,
            started,
            limits,
            in_force,
            freed: Notify::new(),
        }))
    }

    /// A seat for a connection that lasts.
    ///
    /// # Errors
    /// 503 if there is none, 429 if the caller has as many as it may.
    pub fn seat(&self, admission: &Admission) -> Result<Seat, Problem> {
        Ok(Seat {
            place: Some(admission.connect()?),
            app: self.clone(),
        })
    }

    /// Waits until every reader has gone.
    pub async fn all_seats_free(&self) {
        while self.connections() > 0 {
            self.freed.notified().await;
        }
    }

    /// Open connections: sockets, streams, waiting long-polls, uploads.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.limits.connections()
    }
}
