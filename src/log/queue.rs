//! Groups of events that wait for a lane.
//!
//! # Invariants
//! - Bounded by groups and by bytes; at the bound a group is refused at once.
//! - A batch holds whole groups, in the order they came, and no id twice.
//! - A group whose deadline has passed is not written: it was answered.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::append::{Answers, Appended};
use super::error::AppendError;
use super::writer::Outcome;
use crate::event::limits::{
    APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, BATCH_BYTES_MAX, BATCH_EVENTS_MAX,
};
use crate::event::{EventId, NewEvent, Seq, Tenant};

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
}

impl QueueState {
    fn pop(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.bytes = self.bytes.saturating_sub(group.weight);
        Some(group)
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
}

impl Queue {
    pub(super) fn push(&self, group: Group) -> Result<(), AppendError> {
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

    /// Waits for the next group, and takes it alone.
    pub(super) async fn next_group(&self) -> Vec<Group> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.drop_late();
                if let Some(group) = state.pop() {
                    if !state.groups.is_empty() {
                        self.arrived.notify_one();
                    }
                    return vec![group];
                }
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Vec<Group> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.drop_late();
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
            if !seen.is_empty() && keys().any(|key| seen.contains(&key)) {
                break;
            }
            let is_last = group.has_expectations() || state.groups.len() == 1;
            // Within a group no id comes twice, so a group that nothing follows need not be remembered.
            if !is_last {
                seen.extend(keys());
            }
            batch.extend(state.pop());
            if is_last {
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
