//! Group commit: the next batch is whatever arrived while the last was committing.
//!
//! # Invariants
//! - No timer: an event that finds an idle lane is written at once.
//! - A group is stored as a whole or not at all, and answered after the commit. A bad group fails alone.
//! - Every event has an id before it is queued, so a batch whose outcome is unknown can be sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{AppendError, Unavailable};
use super::identity::Identity;
use super::inbox::Inbox;
use super::lane::Lane;
use super::listener::Listener;
use super::patient::PatientLane;
use super::queue::{Group, Queue, Sequence};
use super::repeats::Unique;
use super::writer::Writer;
use crate::event::limits::APPEND_TIMEOUT;
use crate::event::{EventId, Expect, Label, NewEvent, Position, Seq, Tenant};
use crate::pg::Connector;
use crate::tasks::Tasks;

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

/// Writes events.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: Arc<Queue>,
    patient: Arc<Queue>,
    identity: Identity,
    /// Of events that name none.
    region: Option<Label>,
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
    ) -> Self {
        let (queue, patient) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let writer = |purpose| {
            let (connector, identity) = (connector.clone(), identity.clone());
            Writer::new(purpose, connector, identity, listener.clone())
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
            region: None,
        }
    }

    /// Gives this region to events that name none.
    #[must_use]
    pub fn in_region(self, region: Option<Label>) -> Self {
        Self { region, ..self }
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

    /// Stores `events` together or not at all; answers after the commit, member by member.
    ///
    /// An id that stands twice in `events` is stored once if both have the same content, as a retry would be.
    ///
    /// Those of one `sequence` are stored in the order of the calls, as long as each is polled once in that order.
    ///
    /// # Errors
    /// If the queue is full, members conflict (all of them), or the database cannot be asked in time.
    pub async fn append(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
        sequence: Option<Sequence>,
    ) -> Result<Vec<Appended>, Vec<AppendError>> {
        let mut appended = Vec::with_capacity(events.len());
        let mut errors = Vec::new();
        let unique = self.whole(events).map_err(|error| vec![error])?;
        let answers = self.enqueue(tenant, unique, true, sequence).await;
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
    ) -> impl Future<Output = Result<Answers, AppendError>> + Send + use<> {
        let (own, tenant) = (self.clone(), tenant.clone());
        let mut answers = Answers::with_capacity(events.len());
        let parts = self.parts(events);
        async move {
            for part in parts {
                answers.extend(own.enqueue(&tenant, part, false, None).await?);
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
        sequence: Option<Sequence>,
    ) -> Result<Answers, AppendError> {
        let (events, ids, expected, places) = unique.split();
        if events.is_empty() {
            return Ok(places.weave(Vec::new()));
        }
        let (reply, answer) = oneshot::channel();
        let weight = events.iter().map(NewEvent::weight).sum();
        let deadline = Instant::now()
            .checked_add(APPEND_TIMEOUT)
            .unwrap_or_else(Instant::now);
        let tenant = tenant.clone();
        self.queue.push(Group {
            tenant,
            events,
            ids,
            expected,
            is_atomic,
            deadline,
            weight,
            reply,
            sequence,
            under_way: None,
            outcomes: Vec::new(),
        })?;
        let patience = APPEND_TIMEOUT.saturating_add(Duration::from_secs(1));
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answers)) => Ok(places.weave(answers)),
            Ok(Err(_)) | Err(_) => Err(AppendError::Unavailable(Unavailable::Silent)),
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
