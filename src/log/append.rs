//! Group commit: the next batch is whatever arrived while the last was committing.
//!
//! # Invariants
//! - No timer: an event that finds an idle lane is written at once.
//! - A group is stored as a whole or not at all, and answered after the commit. A bad group fails alone.
//! - Every event has an id before it is queued, so a batch whose outcome is unknown can be sent again.

mod late;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::breaker::{Breaker, BreakerSettings};
use super::error::{AppendError, Unavailable};
use super::group::{Group, Leave, Sequence};
use super::identity::Identity;
use super::inbox::Inbox;
use super::lane::Lane;
use super::listener::Listener;
use super::patient::PatientLane;
use super::queue::{Queue, Refusal};
use super::repeats::Unique;
use super::writer::Writer;
use crate::event::limits::{APPEND_TIMEOUT, APPEND_WAIT_MAX, RETRY_AFTER_MIN};
use crate::event::{ByPriority, EventId, Expect, Label, NewEvent, Position, Seq, Tenant};
use crate::pg::Connector;
use crate::tasks::Tasks;
use crate::telemetry::{Fate, Metrics, RequestSpan};

/// Batches on their way to the database at once. Two keep both the server and the database busy; more would only make
/// the batches smaller.
const LANES: usize = 2;
/// Requests at once that wait for other transactions; they connect when there is one.
const PATIENT_LANES: usize = 2;

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its id, the client's or ours.
    pub id: EventId,
    /// Its place.
    pub position: Position,
    /// Whether it was stored before, with the same content.
    pub duplicate: bool,
}

/// What became of each event of a request, in order.
pub type Answers = Vec<Result<Appended, AppendError>>;

/// What a client asks for with its events.
#[derive(Debug, Clone, Default)]
pub struct AppendOptions {
    /// Those of one sequence are stored in the order of the calls, as long as each is polled once in that order.
    pub sequence: Option<Sequence>,
    /// While the breaker is open they are held for as long as this, and refused then; without it they are refused at once.
    /// Also how long they are waited for in any case.
    pub wait: Option<Duration>,
    /// The request they come with, if it is traced.
    pub request: Option<RequestSpan>,
    /// Asked before each attempt at what is held: who sent it may no longer be allowed to write.
    pub leave: Option<Leave>,
}

/// How this server writes.
#[derive(Debug, Clone, Default)]
pub struct AppenderSettings {
    /// Events that are stored with one statement at most.
    pub batch_events_max: usize,
    /// When the database is left alone.
    pub breaker: BreakerSettings,
    /// Of events that name none.
    pub region: Option<Label>,
}

/// Writes events.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: Arc<Queue>,
    patient: Arc<Queue>,
    identity: Identity,
    breaker: Breaker,
    /// Of events that name none.
    region: Option<Label>,
    metrics: Metrics,
}

impl Appender {
    /// Starts the lanes. What they commit goes to `inbox`.
    #[must_use]
    pub fn start(
        connector: &Connector,
        identity: &Identity,
        inbox: &Arc<Inbox>,
        listener: &Listener,
        tasks: &Tasks,
        metrics: &Metrics,
        settings: AppenderSettings,
    ) -> Self {
        let (queue, patient) = (
            Arc::new(Queue::new(settings.batch_events_max)),
            Arc::new(Queue::patient()),
        );
        let breaker = Breaker::new(
            settings.breaker,
            connector.shortages().clone(),
            metrics.clone(),
        );
        let writer = |purpose| {
            let (connector, identity) = (connector.clone(), identity.clone());
            Writer::new(
                purpose,
                connector,
                identity,
                listener.clone(),
                breaker.clone(),
                metrics.clone(),
            )
        };
        // Not dropped in the middle of a commit: they stop between batches.
        for number in 0..LANES {
            let (inbox, queue, patient) =
                (Arc::clone(inbox), Arc::clone(&queue), Arc::clone(&patient));
            let lane = Lane::new(writer(format!("append {number}")), inbox, queue, patient);
            let stop = tasks.token().clone();
            tasks.spawn(async move { lane.run(&stop).await });
        }
        for number in 0..PATIENT_LANES {
            let writer = writer(format!("append patiently {number}"));
            let lane = PatientLane::new(writer, Arc::clone(inbox), Arc::clone(&patient));
            let stop = tasks.token().clone();
            tasks.spawn(async move { lane.run(&stop).await });
        }
        Self {
            queue,
            patient,
            identity: identity.clone(),
            breaker: breaker.clone(),
            region: settings.region,
            metrics: metrics.clone(),
        }
    }

    /// Whether the database is left alone for a while.
    #[must_use]
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Requests and bytes that wait, for a lane or for another transaction.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let ((requests, bytes), (more, more_bytes)) = (self.queue.depth(), self.patient.depth());
        (
            requests.saturating_add(more),
            bytes.saturating_add(more_bytes),
        )
    }

    /// Requests that wait for a lane, by the most urgent of their events.
    #[must_use]
    pub fn by_priority(&self) -> ByPriority<usize> {
        self.queue.by_priority()
    }

    /// How many events a batch may hold now.
    #[must_use]
    pub fn batch_limit(&self) -> usize {
        self.queue.batch_limit()
    }

    /// Says how much waits.
    pub fn measure(&self) {
        let ((_, bytes), (patient, _)) = (self.queue.depth(), self.patient.depth());
        let append = &self.metrics.append;
        append.set_queued(&self.by_priority(), bytes);
        append.set_batch_limit(self.batch_limit());
        let patient = i64::try_from(patient).unwrap_or(i64::MAX);
        append.patient.set(patient);
    }

    /// Stores `events` together or not at all; answers after the commit, member by member.
    ///
    /// An id that stands twice in `events` is stored once if both have the same content, as a retry would be.
    ///
    /// # Errors
    /// If the queue is full, members conflict (all of them), or the database cannot be asked in time.
    pub async fn append(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
        options: AppendOptions,
    ) -> Result<Vec<Appended>, Vec<AppendError>> {
        let mut appended = Vec::with_capacity(events.len());
        let mut errors = Vec::new();
        let unique = self.whole(events).map_err(|error| vec![error])?;
        let answers = self.enqueue(tenant, unique, true, options).await;
        for answer in answers.map_err(|error| vec![error])? {
            match answer {
                Ok(one) => appended.push(one),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Ok(appended);
        }
        // Group-mates of the members at fault are of interest only if there are none.
        let is_at_fault = |error: &AppendError| !matches!(error, AppendError::Skipped);
        if errors.iter().any(is_at_fault) {
            errors.retain(is_at_fault);
        }
        Err(errors)
    }

    /// Stores `events` in their order, each by itself: one that is refused does not hold up the others.
    ///
    /// What can be done before the log is asked is done at once; nothing is on its way before the future is polled.
    ///
    /// # Errors
    /// If the queue is full or the database cannot be asked in time.
    pub fn append_each(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
        options: AppendOptions,
    ) -> impl Future<Output = Result<Answers, AppendError>> + Send + use<> {
        let (own, tenant) = (self.clone(), tenant.clone());
        let mut answers = Answers::with_capacity(events.len());
        let parts = self.parts(events);
        async move {
            // One wait for all parts.
            let until = options
                .wait
                .and_then(|wait| Instant::now().checked_add(wait));
            for part in parts {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let options = AppendOptions {
                    wait: left,
                    ..options.clone()
                };
                answers.extend(own.enqueue(&tenant, part, false, options).await?);
            }
            Ok(answers)
        }
    }

    /// All of `events`, if none is refused.
    fn whole(&self, events: Vec<NewEvent>) -> Result<Unique, AppendError> {
        let mut unique = Unique::default();
        for (index, event) in events.into_iter().enumerate() {
            let event = self.placed(event);
            let expected = self.expected(index, event.expect.as_ref())?;
            unique
                .add(event, expected)
                .map_err(|_| AppendError::IdConflict { index })?;
        }
        Ok(unique)
    }

    /// `events` in their order; a part ends before an id that comes again with other content.
    fn parts(&self, events: Vec<NewEvent>) -> Vec<Unique> {
        let mut parts = Vec::new();
        let mut part = Unique::default();
        for event in events {
            let event = self.placed(event);
            match self.expected(0, event.expect.as_ref()) {
                Err(error) => part.refuse(error),
                Ok(expected) => {
                    if let Err(event) = part.add(event, expected) {
                        parts.push(std::mem::take(&mut part));
                        // The first of its part repeats nothing.
                        let _ = part.add(*event, expected);
                    }
                }
            }
        }
        parts.push(part);
        parts
    }

    fn placed(&self, mut event: NewEvent) -> NewEvent {
        if event.region.is_none() {
            event.region.clone_from(&self.region);
        }
        event
    }

    async fn enqueue(
        &self,
        tenant: &Tenant,
        unique: Unique,
        is_atomic: bool,
        options: AppendOptions,
    ) -> Result<Answers, AppendError> {
        let (events, ids, expected, places) = unique.split();
        if events.is_empty() {
            return Ok(places.weave(Vec::new()));
        }
        let (reply, answer) = oneshot::channel();
        let priorities = priorities(&events);
        let class = events.iter().map(|event| event.priority).min();
        let weight = events.iter().map(NewEvent::weight).sum();
        let received = Instant::now();
        let AppendOptions {
            sequence,
            wait,
            request,
            leave,
        } = options;
        let timeout = wait.unwrap_or(APPEND_TIMEOUT).min(APPEND_WAIT_MAX);
        let deadline = received.checked_add(timeout).unwrap_or(received);
        if let (None, Some(tripped)) = (wait, self.breaker.open_for(received)) {
            self.metrics
                .append
                .count_each(&priorities, Fate::Unavailable);
            return Err(AppendError::Tripped(tripped));
        }
        let tenant = tenant.clone();
        let traced = self
            .metrics
            .traces
            .appending(&events, request.as_ref(), received);
        let pushed = self.queue.push(Group {
            tenant,
            events,
            ids,
            expected,
            is_atomic,
            deadline,
            is_held: wait.is_some(),
            leave,
            received,
            weight,
            class: class.unwrap_or_default(),
            reply,
            sequence,
            under_way: None,
            traced,
            outcomes: Vec::new(),
        });
        if let Err(refusal) = pushed {
            let (error, fate) = self.refused(refusal);
            self.metrics.append.count_each(&priorities, fate);
            return Err(error);
        }
        match self.answer_in_time(answer, wait, timeout).await {
            Ok(Ok(answers)) => Ok(places.weave(answers)),
            Ok(Err(_)) => {
                // Dropped before it was tried; what is answered later is counted then.
                let fate = Fate::Unavailable;
                self.metrics.append.count_each(&priorities, fate);
                Err(AppendError::Unavailable(Unavailable::Silent))
            }
            Err(_) => Err(AppendError::Unavailable(Unavailable::Silent)),
        }
    }

    /// What whoever is not let into the queue is told.
    fn refused(&self, refusal: Refusal) -> (AppendError, Fate) {
        match refusal {
            Refusal::Shut => {
                let tripped = self.breaker.turned_away(RETRY_AFTER_MIN);
                (tripped.into(), Fate::Unavailable)
            }
            Refusal::Full { retry_after } => (AppendError::Overloaded { retry_after }, Fate::Shed),
        }
    }

    fn expected(&self, index: usize, expect: Option<&Expect>) -> Result<Option<Seq>, AppendError> {
        match expect {
            None => Ok(None),
            Some(Expect::None) => Ok(Some(0)),
            Some(Expect::Cursor(text)) => self
                .identity
                .decode(text)
                .map(|cursor| Some(cursor.position.seq))
                .map_err(|error| AppendError::ExpectedCursor { index, error }),
        }
    }
}

/// How many events there are of each priority.
fn priorities(events: &[NewEvent]) -> ByPriority<u64> {
    let mut counts = ByPriority::default();
    for event in events {
        let count: &mut u64 = counts.of_mut(event.priority);
        *count = count.saturating_add(1);
    }
    counts
}
