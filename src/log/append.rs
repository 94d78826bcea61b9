//! Group commit: the next batch is whatever arrived while the last was committing.
//!
//! # Invariants
//! - No timer: an event that finds an idle lane is written at once.
//! - A group is stored as a whole or not at all, and answered after the commit. A bad group fails alone.
//! - Every event has an id before it is queued, so a batch whose outcome is unknown can be sent again.
//! - The queue is bounded by groups and by bytes; at the bound a group is refused at once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::error::{AppendError, Unavailable};
use super::identity::Identity;
use super::lane::{Lane, Outcome};
use crate::event::limits::{
    APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, APPEND_TIMEOUT, BATCH_BYTES_MAX, BATCH_EVENTS_MAX,
};
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

/// Events of one request: neighbours in the log, in their order.
#[derive(Debug)]
pub struct Group {
    pub(super) tenant: Tenant,
    pub(super) events: Vec<NewEvent>,
    pub(super) ids: Vec<EventId>,
    pub(super) expected: Vec<Option<Seq>>,
    /// Stored together or not at all; else each by itself.
    pub(super) is_atomic: bool,
    pub(super) deadline: Instant,
    weight: usize,
    reply: oneshot::Sender<Answers>,
}

impl Group {
    pub(super) fn has_expectations(&self) -> bool {
        self.expected.iter().any(Option::is_some)
    }

    /// Answers whoever waits; nobody may be left.
    pub(super) fn answer(self, outcomes: Vec<Outcome>) {
        let answers = self
            .ids
            .into_iter()
            .zip(outcomes)
            .enumerate()
            .map(|(index, (id, outcome))| match outcome {
                Ok((position, duplicate)) => Ok(Appended {
                    id,
                    position,
                    duplicate,
                }),
                Err(error) => Err(error.at(index)),
            })
            .collect();
        let _ = self.reply.send(answers);
    }
}

/// Groups that wait for a lane.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    groups: VecDeque<Group>,
    bytes: usize,
}

impl Queue {
    fn push(&self, group: Group) -> Result<(), AppendError> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = state.groups.len() >= APPEND_QUEUE_MAX
                || (state.bytes.saturating_add(group.weight) > APPEND_QUEUE_BYTES_MAX
                    && !state.groups.is_empty());
            if is_full {
                return Err(AppendError::Overloaded {
                    retry_after: Duration::from_secs(1),
                });
            }
            state.bytes = state.bytes.saturating_add(group.weight);
            state.groups.push_back(group);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for the next batch: what is there, up to the bounds of one statement. A group with expectations comes
    /// alone, and of two groups that hold the same id the second waits for the next batch.
    pub(super) async fn next_batch(&self) -> Vec<Group> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Vec<Group> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch: Vec<Group> = Vec::new();
        let mut seen: HashSet<(Tenant, EventId)> = HashSet::new();
        let (mut events, mut bytes) = (0_usize, 0_usize);
        while let Some(group) = state.groups.front() {
            events = events.saturating_add(group.events.len());
            bytes = bytes.saturating_add(group.weight);
            let is_over =
                events > BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX || group.has_expectations();
            if is_over && !batch.is_empty() {
                break;
            }
            let keys = || {
                group
                    .ids
                    .iter()
                    .map(|id| (group.tenant.clone(), id.clone()))
            };
            if keys().any(|key| seen.contains(&key)) {
                break;
            }
            let is_alone = group.has_expectations();
            seen.extend(keys());
            if let Some(group) = state.groups.pop_front() {
                state.bytes = state.bytes.saturating_sub(group.weight);
                batch.push(group);
            }
            if is_alone {
                break;
            }
        }
        let is_more = !state.groups.is_empty();
        drop(state);
        if is_more {
            self.arrived.notify_one();
        }
        batch
    }

    /// Groups and bytes that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.groups.len(), state.bytes)
    }
}

/// Writes events.
#[derive(Debug, Clone)]
pub struct Appender {
    queue: Arc<Queue>,
    identity: Identity,
}

impl Appender {
    /// Starts the lanes. `committed` is signalled after each commit.
    #[must_use]
    pub fn start(
        connector: &Connector,
        identity: &Identity,
        committed: &Arc<Notify>,
        tasks: &Tasks,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        for number in 0..LANES {
            let lane = Lane::new(number, connector.clone(), Arc::clone(committed));
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
