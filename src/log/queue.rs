//! Groups of events that wait for a lane.
//!
//! # Invariants
//! - Bounded by groups and by bytes, in total and for each tenant; at the bound a group is refused at once.
//! - A batch holds whole groups, of each tenant in the order they came, and no id twice. Tenants take turns.
//! - Groups of one sequence are written in the order they came: while one is under way, the others wait.
//! - A group whose deadline has passed is not written: it was answered.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::append::{Answers, Appended};
use super::error::AppendError;
use super::waiting::Waiting;
use super::writer::Outcome;
use crate::event::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use crate::event::{EventId, NewEvent, Seq, Tenant};

/// Requests that are to be stored in the order they are made: those of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Another than all before.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

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
    pub(super) weight: usize,
    pub(super) reply: oneshot::Sender<Answers>,
    pub(super) sequence: Option<Sequence>,
    /// While it is under way.
    pub(super) under_way: Option<UnderWay>,
    /// What a patient lane has found out of each event; empty before.
    pub(super) outcomes: Vec<Option<Outcome>>,
}

/// Keeps the others of a sequence waiting.
#[derive(Debug)]
pub(super) struct UnderWay {
    sequence: Sequence,
    queue: Arc<Queue>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        {
            let mut state = self.queue.lock();
            if let Some(groups) = state.under_way.get_mut(&self.sequence) {
                *groups = groups.saturating_sub(1);
                if *groups == 0 {
                    state.under_way.remove(&self.sequence);
                }
            }
        }
        self.queue.arrived.notify_one();
    }
}

impl Group {
    pub(super) fn has_expectations(&self) -> bool {
        self.expected.iter().any(Option::is_some)
    }

    /// Answers whoever waits; nobody may be left. What comes back is to be dropped, which for a large batch takes longer
    /// than the answer.
    pub(super) fn answer(self, outcomes: Vec<Outcome>) -> Vec<NewEvent> {
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
        self.events
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
    waiting: Waiting,
    /// How many groups of a sequence the lanes have.
    under_way: HashMap<Sequence, usize>,
}

/// So many tenants are passed over whose next group does not go into a batch, until it is closed.
const PASSED_MAX: usize = 64;

/// What one statement takes.
#[derive(Debug, Default)]
struct Batch {
    groups: Vec<Group>,
    seen: HashSet<(Tenant, EventId)>,
    events: usize,
    bytes: usize,
    is_closed: bool,
}

impl Batch {
    /// Takes a group in, or gives it back if it does not go with the others. `is_last`: nothing follows.
    fn add(&mut self, group: Group, is_last: bool) -> Option<Group> {
        let events = self.events.saturating_add(group.events.len());
        let bytes = self.bytes.saturating_add(group.weight);
        let is_over =
            events > BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX || group.has_expectations();
        let keys = || {
            group
                .ids
                .iter()
                .map(|id| (group.tenant.clone(), id.clone()))
        };
        let is_repeated = !self.seen.is_empty() && keys().any(|key| self.seen.contains(&key));
        if is_repeated || (is_over && !self.groups.is_empty()) {
            return Some(group);
        }
        let is_full = events >= BATCH_EVENTS_MAX || bytes >= BATCH_BYTES_MAX;
        self.is_closed = is_last || is_full || group.has_expectations();
        // Within a group no id comes twice, so a group that nothing follows need not be remembered.
        if !self.is_closed {
            self.seen.extend(keys());
        }
        (self.events, self.bytes) = (events, bytes);
        self.groups.push(group);
        None
    }
}

impl QueueState {
    /// What there is, up to the bounds of one statement, and whether there is more for another.
    fn batch(&mut self) -> (Vec<Group>, bool) {
        let now = Instant::now();
        let mut batch = Batch::default();
        let (mut kept_waiting, mut passed) = (Vec::new(), Vec::new());
        while !batch.is_closed && passed.len() < PASSED_MAX {
            let Some(group) = self.waiting.next_in_time(now) else {
                break;
            };
            let tenant = group.tenant.clone();
            if self.is_kept_waiting(&group) {
                kept_waiting.push(group);
            } else if let Some(group) = batch.add(group, self.waiting.is_empty()) {
                self.waiting.put_back(group);
                passed.push(tenant);
                continue;
            }
            self.waiting.end_turn(&tenant);
        }
        let is_more = !self.waiting.is_empty();
        for group in kept_waiting.into_iter().rev() {
            let tenant = group.tenant.clone();
            self.waiting.put_back(group);
            if !passed.contains(&tenant) {
                self.waiting.end_turn(&tenant);
            }
        }
        for tenant in passed.iter().rev() {
            self.waiting.be_next(tenant);
        }
        (batch.groups, is_more)
    }

    fn is_kept_waiting(&self, group: &Group) -> bool {
        group
            .sequence
            .is_some_and(|sequence| self.under_way.contains_key(&sequence))
    }
}

impl Queue {
    pub(super) fn push(&self, group: Group) -> Result<(), AppendError> {
        {
            let mut state = self.lock();
            if !state.waiting.has_room(&group.tenant, group.weight) {
                return Err(AppendError::Overloaded {
                    retry_after: Duration::from_secs(1),
                });
            }
            state.waiting.push_back(group);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes back, as the first, what a lane has not tried.
    pub(super) fn give_back(&self, mut groups: Vec<Group>) {
        for group in &mut groups {
            group.under_way = None;
        }
        let mut state = self.lock();
        for group in groups.into_iter().rev() {
            let tenant = group.tenant.clone();
            state.waiting.put_back(group);
            state.waiting.be_next(&tenant);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Waits for the next batch: what is there, up to the bounds of one statement. A group with expectations comes
    /// alone, and of two groups that hold the same id the second waits for the next batch.
    pub(super) async fn next_batch(self: &Arc<Self>) -> Vec<Group> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.arrived.notified().await;
        }
    }

    /// Waits for the next group, and takes it alone, late or not.
    pub(super) async fn next_group(&self) -> Group {
        loop {
            {
                let mut state = self.lock();
                if let Some(group) = state.waiting.next() {
                    state.waiting.end_turn(&group.tenant);
                    if !state.waiting.is_empty() {
                        self.arrived.notify_one();
                    }
                    return group;
                }
            }
            self.arrived.notified().await;
        }
    }

    fn take(self: &Arc<Self>) -> Vec<Group> {
        let mut state = self.lock();
        let (mut batch, is_more) = state.batch();
        for group in &mut batch {
            if let Some(sequence) = group.sequence {
                let groups = state.under_way.entry(sequence).or_default();
                *groups = groups.saturating_add(1);
                let queue = Arc::clone(self);
                group.under_way = Some(UnderWay { sequence, queue });
            }
        }
        drop(state);
        if is_more {
            self.arrived.notify_one();
        }
        batch
    }

    /// Groups and bytes that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.lock().waiting.size()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::limits::APPEND_QUEUE_MAX;
    use crate::event::new_event;

    fn group(tenant: &str, events: usize, sequence: Option<Sequence>) -> Group {
        let event = || new_event::parse(r#"{"topic":"a.b"}"#, 1_000).unwrap();
        let id = |_| EventId::from(uuid::Uuid::now_v7());
        Group {
            tenant: Tenant::parse(tenant).unwrap(),
            events: (0..events).map(|_| event()).collect(),
            ids: (0..events).map(id).collect(),
            expected: vec![None; events],
            is_atomic: true,
            deadline: Instant::now() + Duration::from_mins(1),
            weight: events * 100,
            reply: oneshot::channel().0,
            sequence,
            under_way: None,
            outcomes: Vec::new(),
        }
    }

    fn tenants(batch: &[Group]) -> String {
        batch.iter().map(|group| group.tenant.as_str()).collect()
    }

    #[test]
    fn tenants_take_turns_and_what_does_not_fit_is_next() {
        let queue = Arc::new(Queue::default());
        for _ in 0..3 {
            queue.push(group("a", 900, None)).unwrap();
        }
        queue.push(group("b", 1, None)).unwrap();
        queue.push(group("c", 1_500, None)).unwrap();
        // That of c and the third of a do not go with the others.
        assert_eq!(tenants(&queue.take()), "aba");
        queue.push(group("b", 1, None)).unwrap();
        assert_eq!(tenants(&queue.take()), "cb");
        assert_eq!(tenants(&queue.take()), "a");
        assert!(queue.take().is_empty());
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn a_tenant_that_floods_leaves_room_and_is_no_reason_to_wait() {
        let queue = Arc::new(Queue::default());
        let mut pushed = 0;
        while queue.push(group("loud", 1, None)).is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, APPEND_QUEUE_MAX / 4 * 3);
        queue.push(group("quiet", 1, None)).unwrap();
        let batch = queue.take();
        assert_eq!(batch.len(), BATCH_EVENTS_MAX);
        assert_eq!(tenants(&batch[..2]), "loudquiet");
    }

    #[test]
    fn a_sequence_stays_in_order_and_holds_up_nobody_else() {
        let queue = Arc::new(Queue::default());
        let sequence = Sequence::next();
        queue.push(group("a", 1, Some(sequence))).unwrap();
        let first = queue.take();
        assert_eq!(first.len(), 1);
        for events in [2, 3] {
            queue.push(group("a", events, Some(sequence))).unwrap();
        }
        queue.push(group("a", 4, None)).unwrap();
        queue.push(group("b", 5, None)).unwrap();
        let others: Vec<usize> = queue.take().iter().map(|g| g.events.len()).collect();
        assert_eq!(others, [5, 4]);
        assert!(queue.take().is_empty());
        drop(first);
        let rest: Vec<usize> = queue.take().iter().map(|g| g.events.len()).collect();
        assert_eq!(rest, [2, 3]);
    }

    #[test]
    fn what_is_given_back_is_first_and_what_is_late_is_dropped() {
        let queue = Arc::new(Queue::default());
        let late = Group {
            deadline: Instant::now(),
            ..group("a", 9, None)
        };
        queue.push(late).unwrap();
        for events in [1, 2] {
            queue.push(group("a", events, None)).unwrap();
        }
        let batch = queue.take();
        assert_eq!(batch.len(), 2);
        queue.push(group("a", 3, None)).unwrap();
        queue.give_back(batch);
        let all: Vec<usize> = queue.take().iter().map(|g| g.events.len()).collect();
        assert_eq!(all, [1, 2, 3]);
    }
}
