//! Groups of events that wait for a lane.
//!
//! # Invariants
//! - Bounded by groups and by bytes; at the bound a group is refused at once.
//! - A batch holds whole groups, in the order they came, and no id twice.
//! - Groups of one sequence are written in the order they came: while one is under way, the others wait.
//! - A group whose deadline has passed is not written: it was answered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::append::{Answers, Appended};
use super::error::AppendError;
use super::writer::Outcome;
use crate::event::limits::{
    APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, BATCH_BYTES_MAX, BATCH_EVENTS_MAX,
};
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
    groups: VecDeque<Group>,
    bytes: usize,
    /// How many groups of a sequence the lanes have.
    under_way: HashMap<Sequence, usize>,
}

impl QueueState {
    fn pop(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.bytes = self.bytes.saturating_sub(group.weight);
        Some(group)
    }

    fn put_back(&mut self, group: Group) {
        self.bytes = self.bytes.saturating_add(group.weight);
        self.groups.push_front(group);
    }

    /// Groups nobody waits for any more would keep those that come now waiting.
    fn drop_late(&mut self) {
        let now = Instant::now();
        while self
            .groups
            .front()
            .is_some_and(|group| group.deadline <= now)
        {
            self.pop();
        }
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

    /// Takes back, as the first, what a lane has not tried.
    pub(super) fn give_back(&self, mut groups: Vec<Group>) {
        for group in &mut groups {
            group.under_way = None;
        }
        let mut state = self.lock();
        for group in groups.into_iter().rev() {
            state.put_back(group);
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
                if let Some(group) = state.pop() {
                    if !state.groups.is_empty() {
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
        state.drop_late();
        let mut batch: Vec<Group> = Vec::new();
        let mut kept_waiting = Vec::new();
        let mut seen: HashSet<(Tenant, EventId)> = HashSet::new();
        let (mut events, mut bytes) = (0_usize, 0_usize);
        while let Some(group) = state.pop() {
            if state.is_kept_waiting(&group) {
                kept_waiting.push(group);
                continue;
            }
            events = events.saturating_add(group.events.len());
            bytes = bytes.saturating_add(group.weight);
            let is_over =
                events > BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX || group.has_expectations();
            let keys = || {
                group
                    .ids
                    .iter()
                    .map(|id| (group.tenant.clone(), id.clone()))
            };
            let is_repeated = !seen.is_empty() && keys().any(|key| seen.contains(&key));
            if is_repeated || (is_over && !batch.is_empty()) {
                state.put_back(group);
                break;
            }
            let is_last = group.has_expectations() || state.groups.is_empty();
            // Within a group no id comes twice, so a group that nothing follows need not be remembered.
            if !is_last {
                seen.extend(keys());
            }
            batch.push(group);
            if is_last {
                break;
            }
        }
        for group in &mut batch {
            if let Some(sequence) = group.sequence {
                let groups = state.under_way.entry(sequence).or_default();
                *groups = groups.saturating_add(1);
                let queue = Arc::clone(self);
                group.under_way = Some(UnderWay { sequence, queue });
            }
        }
        let is_more = !state.groups.is_empty();
        for group in kept_waiting.into_iter().rev() {
            state.put_back(group);
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
        let state = self.lock();
        (state.groups.len(), state.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
