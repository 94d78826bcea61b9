//! Group commit: the next batch is whatever arrived while the last was committing.
//!
//! # Invariants
//! - No timer: an event that finds an idle lane is written at once.
//! - A group is stored as a whole or not at all, and answered after the commit. A bad group fails alone.
//! - Every event has an id before it is queued, so a batch whose outcome is unknown can be sent again.
//! - The queue is bounded by groups and by bytes; at the bound a group is refused at once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::error::{AppendError, Unavailable};
use super::identity::Identity;
use super::lane::Lane;
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

/// Events that are stored together or not at all.
#[derive(Debug)]
pub struct Group {
    pub(super) tenant: Tenant,
    pub(super) events: Vec<NewEvent>,
    pub(super) ids: Vec<EventId>,
    pub(super) expected: Vec<Option<Seq>>,
    pub(super) deadline: Instant,
    weight: usize,
    reply: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
}

impl Group {
    pub(super) fn has_expectations(&self) -> bool {
        self.expected.iter().any(Option::is_some)
    }

    /// Answers whoever waits; nobody may be left.
    pub(super) fn answer(self, outcome: Result<Vec<(Position, bool)>, AppendError>) {
        let appended = outcome.map(|places| {
            self.ids
                .into_iter()
                .zip(places)
                .map(|(id, (position, duplicate))| Appended {
                    id,
                    position,
                    duplicate,
                })
                .collect()
        });
        let _ = self.reply.send(appended);
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
        let (group, answer, twice) = self.group(tenant, events)?;
        self.queue.push(group)?;
        let patience = APPEND_TIMEOUT.saturating_add(Duration::from_secs(1));
        let appended = match tokio::time::timeout(patience, answer).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) | Err(_) => return Err(AppendError::Unavailable(Unavailable::Silent)),
        };
        Ok(weave(appended, &twice))
    }

    #[expect(clippy::type_complexity, reason = "read at one place, right above")]
    fn group(
        &self,
        tenant: &Tenant,
        events: Vec<NewEvent>,
    ) -> Result<
        (
            Group,
            oneshot::Receiver<Result<Vec<Appended>, AppendError>>,
            Vec<Option<usize>>,
        ),
        AppendError,
    > {
        let mut unique: Vec<NewEvent> = Vec::with_capacity(events.len());
        let mut ids: Vec<EventId> = Vec::with_capacity(events.len());
        let mut expected = Vec::with_capacity(events.len());
        // For each member, the place in `unique` of the one it repeats.
        let mut twice = Vec::with_capacity(events.len());
        let mut places: std::collections::HashMap<EventId, usize> =
            std::collections::HashMap::new();
        for (index, event) in events.into_iter().enumerate() {
            let id = event.id.clone().unwrap_or_else(new_id);
            if let Some(place) = places.get(&id) {
                let is_same = unique
                    .get(*place)
                    .is_some_and(|first| first.has_same_content(&event));
                if !is_same {
                    return Err(AppendError::IdConflict { index });
                }
                twice.push(Some(*place));
                continue;
            }
            places.insert(id.clone(), unique.len());
            expected.push(self.expected(index, event.expect.as_ref())?);
            ids.push(id);
            unique.push(event);
            twice.push(None);
        }
        let (reply, answer) = oneshot::channel();
        let weight = unique.iter().map(NewEvent::weight).sum();
        let deadline = Instant::now()
            .checked_add(APPEND_TIMEOUT)
            .unwrap_or_else(Instant::now);
        let group = Group {
            tenant: tenant.clone(),
            events: unique,
            ids,
            expected,
            deadline,
            weight,
            reply,
        };
        Ok((group, answer, twice))
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

/// Puts the answers of members that repeat another one back into their places.
fn weave(appended: Vec<Appended>, twice: &[Option<usize>]) -> Vec<Appended> {
    if twice.iter().all(Option::is_none) {
        return appended;
    }
    let mut stored = appended.iter().cloned();
    twice
        .iter()
        .filter_map(|place| match place {
            None => stored.next(),
            Some(place) => appended.get(*place).map(|first| Appended {
                duplicate: true,
                ..first.clone()
            }),
        })
        .collect()
}
