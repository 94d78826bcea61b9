//! What every handler may use.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::access::limits::{Allowances, Place, Places};
use crate::access::{Access, Limits, Principal};
use crate::consume::Standing;
use crate::event::Tenant;
use crate::event::limits::{APPEND_QUEUE_MAX, BODIES_BYTES_MAX, MESSAGES_BYTES_MAX};
use crate::feed::Hub;
use crate::http::admission::Admission;
use crate::http::audit::Audit;
use crate::http::budget::Budget;
use crate::http::checks::Checks;
use crate::http::drain::Drain;
use crate::http::in_force::InForce;
use crate::http::ingest::IngestLimits;
use crate::http::origin::Origins;
use crate::http::problem::Problem;
use crate::http::pulse::Pulse;
use crate::http::serve::Patience;
use crate::http::sessions::{Room, Sessions};
use crate::http::system::System;
use crate::http::validate::Validator;
use crate::log::wakeup::NotifyMode;
use crate::log::{Appender, History};
use crate::tasks::Tasks;
use crate::telemetry::{LogFilter, Metrics, Open, Transport};

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
    /// Ends when the server does.
    pub tasks: Tasks,
    /// How readers leave before that.
    pub drain: Drain,
    /// Who wrote and read what.
    pub audit: Audit,
    /// When the server began.
    pub started: Instant,
    /// Whose administrators may do what touches all tenants.
    operators: Option<Tenant>,
    /// Who checks this server.
    pub validator: Arc<dyn Validator>,
    /// What tenants and credentials may ask for.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// What is looked at once a second.
    pub pulse: Pulse,
    /// Who listens to that.
    pub system: System,
    /// Sockets, streams, waiting long-polls, and pages on their way.
    pub sessions: Sessions,
    /// Places for appends that wait until their tenants' settings can be read.
    pub held: Places,
    /// Which lines are logged.
    log_filter: OnceLock<LogFilter>,
    /// Who has changed that last, for a while.
    log_changed_by: Mutex<Option<Principal>>,
    /// How new events are meant to be learnt of.
    pub notify: NotifyMode,
    /// Named readers of the log.
    pub consumers: Vec<Standing>,
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

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct AppParts {
    /// Readers, writers and history.
    pub log: (Arc<Hub>, Appender, History),
    /// Who may.
    pub access: Access,
    /// From which pages.
    pub origins: Origins,
    /// Bounds of what is taken in.
    pub ingest: IngestLimits,
    /// What tenants and credentials may ask for.
    pub allowances: Allowances,
    /// What sessions may hold.
    pub room: Room,
    /// Who wrote and read what.
    pub audit: Audit,
    /// What is counted.
    pub metrics: Metrics,
    /// Named readers of the log.
    pub consumers: Vec<Standing>,
    /// Whose administrators may do what touches all tenants.
    pub operators: Option<Tenant>,
    /// How new events are meant to be learnt of.
    pub notify: NotifyMode,
    /// Who checks this server.
    pub validator: Arc<dyn Validator>,
    /// Ends when the server does.
    pub tasks: Tasks,
    /// How readers leave before that.
    pub drain: Drain,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    app: App,
    place: Option<Place>,
    _open: Open,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.place = None;
        self.app.freed.notify_one();
    }
}

impl Seat {
    /// Counts it as that caller's, who is of the same tenant.
    ///
    /// # Errors
    /// 429 if the caller has as many as it may.
    pub fn move_to(&mut self, admission: &Admission) -> Result<(), Problem> {
        match &mut self.place {
            Some(place) => admission.take_over(place, "connections"),
            None => Ok(()),
        }
    }
}

impl App {
    /// Puts the floors together.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let AppParts {
            log: (hub, appender, history),
            access,
            origins,
            ingest,
            allowances,
            room,
            audit,
            metrics,
            consumers,
            operators,
            notify,
            validator,
            tasks,
            drain,
        } = parts;
        let started = Instant::now();
        let limits = Limits::new(&allowances);
        metrics.connections.set_limit(allowances.connections);
        metrics.connections.set_sessions_limit(room.bytes);
        let sessions = Sessions::new(room, metrics.clone());
        let in_force = InForce::new(&ingest, &Patience::default(), &limits, &allowances);
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
            drain,
            audit,
            started,
            operators,
            validator,
            limits,
            metrics,
            pulse: Pulse::default(),
            sessions,
            held: Places::new(APPEND_QUEUE_MAX, None, None),
            log_filter: OnceLock::new(),
            log_changed_by: Mutex::default(),
            system: System::default(),
            notify,
            consumers,
            in_force,
            freed: Notify::new(),
        }))
    }

    /// A seat for a connection that lasts.
    ///
    /// # Errors
    /// 503 if there is none, 429 if the caller has as many as it may.
    pub fn seat(&self, admission: &Admission, transport: Transport) -> Result<Seat, Problem> {
        Ok(Seat {
            place: Some(admission.connect()?),
            app: self.clone(),
            _open: self.metrics.connections.opened(transport),
        })
    }

    /// From now on operators change which lines are logged by this. The first counts.
    pub fn log_by(&self, filter: LogFilter) {
        let _ = self.log_filter.set(filter);
    }

    /// It was changed by this one, for a while.
    pub fn log_changed_by(&self, principal: &Principal) {
        let by = self.log_changed_by.lock();
        *by.unwrap_or_else(PoisonError::into_inner) = Some(principal.clone());
    }

    /// Brings the setting of the start back, if it is time. Whose change that ends, if it was.
    #[must_use]
    pub fn expire_log_filter(&self, now: Instant) -> Option<Principal> {
        // Asked for nothing: before the server runs it has no filter yet.
        let filter = self.log_filter.get()?;
        let mut by = self
            .log_changed_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        filter.expire(now).then(|| by.take()).flatten()
    }

    /// Which lines are logged.
    #[must_use]
    pub fn log_filter(&self) -> &LogFilter {
        self.log_filter.get_or_init(LogFilter::default)
    }

    /// Whether this tenant's administrators may do what touches all tenants.
    #[must_use]
    pub fn operates(&self, tenant: &Tenant) -> bool {
        match &self.operators {
            Some(operators) => operators == tenant,
            None => self.access.is_development(),
        }
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
