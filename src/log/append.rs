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
use super::lane::{self, Lane};
use super::listener::Listener;
use super::queue::{Group, Queue};
use super::repeats::Unique;
use crate::event::limits::APPEND_TIMEOUT;
use crate::event::{EventId, Expect, NewEvent, Position, Seq, Tenant};
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
        let quick = (0..LANES).map(|number| (lane::Kind::Quick, number));
        let waiting = (0..PATIENT_LANES).map(|number| (lane::Kind::Patient, number));
        for (kind, number) in quick.chain(waiting) {
            let lane = Lane::new(
                kind,
                number,
                connector.clone(),
                identity.clone(),
                Arc::clone(inbox),
                listener.clone(),
                Arc::clone(&patient),
            );
            let queue = Arc::clone(&queue);
            // Not dropped in the middle of a commit: it stops between batches.
            let stop = tasks.token().clone();
            tasks.spawn(async move { lane.run(&queue, &stop).await });
        }
        Self {
            queue,
            patient,
            identity: identity.clone(),
        }
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
    /// # Errors
    /// If the queue is full, a member conflicts, or the database cannot be asked in time.
    pub async fn append(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Appended>, AppendError> {
        let mut appended = Vec::with_capacity(events.len());
        let mut skipped = None;
        let unique = self.whole(events)?;
        for answer in self.enqueue(tenant, unique, true).await? {
            match answer {
                Ok(one) => appended.push(one),
                Err(AppendError::Skipped) => skipped = Some(AppendError::Skipped),
                Err(error) => return Err(error),
            }
        }
        skipped.map_or(Ok(appended), Err)
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
    ) -> impl Future<Output = Result<Answers, AppendError>> + use<'_> {
        let tenant = tenant.clone();
        let mut answers = Answers::with_capacity(events.len());
        let parts = self.parts(events);
        async move {
            for part in parts {
                answers.extend(self.enqueue(&tenant, part, false).await?);
            }
            Ok(answers)
        }
    }

    /// All of `events`, if none is refused.
    fn whole(&self, events: Vec<NewEvent>) -> Result<Unique, AppendError> {
        let mut unique = Unique::default();
        for (index, event) in events.into_iter().enumerate() {
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

    async fn enqueue(
        &self,
        tenant: &Tenant,
        unique: Unique,
        is_atomic: bool,
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
