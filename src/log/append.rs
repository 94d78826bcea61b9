//! Group commit: the next batch is whatever arrived while the last was committing.
//!
//! # Invariants
//! - No timer: an event that finds an idle lane is written at once.
//! - A group is stored as a whole or not at all, and answered after the commit. A bad group fails alone.
//! - Every event has an id before it is queued, so a batch whose outcome is unknown can be sent again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::{AppendError, Unavailable};
use super::identity::Identity;
use super::inbox::Inbox;
use super::lane::Lane;
use super::listener::Listener;
use super::queue::{Group, Queue};
use crate::event::limits::APPEND_TIMEOUT;
use crate::event::{EventId, Expect, NewEvent, Position, Seq, Tenant};
use crate::pg::Connector;
use crate::tasks::Tasks;

/// Batches on their way to the database at once. Two keep both the server and the database busy; more would only make
/// the batches smaller.
const LANES: usize = 2;

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
        let queue = Arc::new(Queue::default());
        for number in 0..LANES {
            let lane = Lane::new(
                number,
                connector.clone(),
                identity.clone(),
                Arc::clone(inbox),
                listener.clone(),
            );
            let queue = Arc::clone(&queue);
            // Not dropped in the middle of a commit: it stops between batches.
            let stop = tasks.token().clone();
            tasks.spawn(async move { lane.run(&queue, &stop).await });
        }
        Self {
            queue,
            identity: identity.clone(),
        }
    }

    /// What waits.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
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
        for answer in self.enqueue(tenant, events, true).await? {
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
    /// # Errors
    /// If the queue is full or the database cannot be asked in time.
    pub async fn append_each(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
    ) -> Result<Answers, AppendError> {
        let mut answers = Answers::with_capacity(events.len());
        for part in super::repeats::parts(events) {
            answers.extend(self.enqueue(tenant, part, false).await?);
        }
        Ok(answers)
    }

    async fn enqueue(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
        is_atomic: bool,
    ) -> Result<Answers, AppendError> {
        let mut unique = Unique::default();
        for (index, event) in events.into_iter().enumerate() {
            let expected = self.expected(index, event.expect.as_ref());
            match expected {
                Err(error) if is_atomic => return Err(error),
                Err(error) => unique.places.push(Place::Refused(error)),
                Ok(expected) => unique.add(index, event, expected, is_atomic)?,
            }
        }
        let Unique {
            events,
            ids,
            expected,
            places,
            ..
        } = unique;
        if events.is_empty() {
            return Ok(weave(Vec::new(), places));
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
            Ok(Ok(answers)) => Ok(weave(answers, places)),
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

fn new_id() -> EventId {
    EventId::from(Uuid::now_v7())
}

/// Where the answer of a member of the request comes from.
#[derive(Debug)]
enum Place {
    /// The next of the log's answers.
    Own,
    /// It repeats the member whose answer is this one.
    Repeats(usize),
    /// It was refused before the log was asked.
    Refused(AppendError),
}

/// The members of a request, each id once.
#[derive(Debug, Default)]
struct Unique {
    events: Vec<NewEvent>,
    ids: Vec<EventId>,
    expected: Vec<Option<Seq>>,
    by_id: HashMap<EventId, usize>,
    places: Vec<Place>,
}

impl Unique {
    fn add(
        &mut self,
        index: usize,
        event: NewEvent,
        expected: Option<Seq>,
        is_atomic: bool,
    ) -> Result<(), AppendError> {
        let id = event.id.clone().unwrap_or_else(new_id);
        if let Some(first) = self.by_id.get(&id) {
            if self
                .events
                .get(*first)
                .is_some_and(|first| first.has_same_content(&event))
            {
                self.places.push(Place::Repeats(*first));
            } else if is_atomic {
                return Err(AppendError::IdConflict { index });
            } else {
                self.places
                    .push(Place::Refused(AppendError::IdConflict { index }));
            }
            return Ok(());
        }
        self.by_id.insert(id.clone(), self.events.len());
        self.events.push(event);
        self.ids.push(id);
        self.expected.push(expected);
        self.places.push(Place::Own);
        Ok(())
    }
}

/// Puts every member's answer into its place.
fn weave(answers: Answers, places: Vec<Place>) -> Answers {
    if places.iter().all(|place| matches!(place, Place::Own)) {
        return answers;
    }
    // Of a member whose first use failed, the repetition fails too.
    let firsts: Vec<Option<Appended>> = answers
        .iter()
        .map(|answer| answer.as_ref().ok().cloned())
        .collect();
    let mut own = answers.into_iter();
    places
        .into_iter()
        .map(|place| match place {
            Place::Own => own.next().unwrap_or(Err(AppendError::Skipped)),
            Place::Refused(error) => Err(error),
            Place::Repeats(first) => match firsts.get(first) {
                Some(Some(first)) => Ok(Appended {
                    duplicate: true,
                    ..first.clone()
                }),
                _ => Err(AppendError::Skipped),
            },
        })
        .collect()
}
