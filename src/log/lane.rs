//! Writes batches, one after the other.
//!
//! # Invariants
//! - A group that the database refuses, or that has to wait for another transaction, is the affair of whoever sent it: a quick
//!   lane finds it and leaves what takes long to the patient ones, where each has its turn.
//! - A group is answered once. Until its deadline it survives a lost connection, a restarting database and a deadlock;
//!   since every event has an id, sending it again stores nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{members, middle};
use super::error::AppendError;
use super::group::{Group, May};
use super::inbox::Inbox;
use super::load::Measured;
use super::queue::{Queue, Taken};
use super::writer::{BACKOFF_MAX, LOCK_TIMEOUT, Outcome, Writer, Written};
use crate::telemetry::AppendMetrics;

/// How long is waited for other transactions to find out which groups of a batch are blocked.
pub(super) const LOCK_TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// So many groups of a batch are found to be blocked before others get their turn.
pub(super) const FOUND_MAX: usize = 32;
/// Groups of a batch that are not answered.
#[derive(Debug)]
enum Undone {
    /// Another transaction is in the way of at least one.
    Blocked(Vec<Group>),
    /// At least one is refused.
    Refused(Vec<Group>),
    /// Those whose deadline has not come.
    InTime(Vec<Group>),
}

/// Writes what comes, many groups at once, over a connection of its own.
#[derive(Debug)]
pub struct Lane {
    writer: Writer,
    inbox: Arc<Inbox>,
    queue: Arc<Queue>,
    /// What takes long.
    patient: Arc<Queue>,
    internal_errors: usize,
    /// More waited than the batch could hold.
    was_full: bool,
}

impl Lane {
    /// A lane from `queue`, which leaves to `patient` what takes long. What it commits goes to `inbox`.
    #[must_use]
    pub const fn new(
        writer: Writer,
        inbox: Arc<Inbox>,
        queue: Arc<Queue>,
        patient: Arc<Queue>,
    ) -> Self {
        Self {
            writer,
            inbox,
            queue,
            patient,
            internal_errors: 0,
            was_full: false,
        }
    }

    /// Writes what its queue holds until `stop`; a batch that was taken is finished.
    pub async fn run(mut self, stop: &CancellationToken) {
        // Connected before the first event, so that it does not wait for it.
        let _ = stop.run_until_cancelled(self.writer.connect()).await;
        let queue = Arc::clone(&self.queue);
        loop {
            let next = async {
                self.writer.ready().await;
                queue.open();
                queue.next_batch().await
            };
            match stop.run_until_cancelled(next).await {
                Some(batch) => self.write(batch).await,
                None => return,
            }
        }
    }

    /// Writes and answers a batch, or leaves what takes long to the patient lanes.
    async fn write(&mut self, mut taken: Taken) {
        self.internal_errors = 0;
        self.was_full = taken.was_full;
        let now = Instant::now();
        for group in &mut taken.groups {
            if let Some(traced) = &mut group.traced {
                traced.taken(now);
            }
            let waited = now.saturating_duration_since(group.received);
            self.writer.metrics().waited(group.class, waited);
        }
        let _busy = taken.busy;
        let mut parts = vec![taken.groups];
        while let Some(part) = parts.pop() {
            match self.write_groups(part).await {
                None => {}
                Some(Undone::InTime(groups)) => parts.push(groups),
                Some(Undone::Blocked(groups)) => self.set_aside(groups).await,
                Some(Undone::Refused(mut groups)) => {
                    let second = groups.split_off(groups.len().div_euclid(2));
                    if groups.is_empty() {
                        self.leave(second);
                    } else {
                        parts.extend([second, groups]);
                    }
                }
            }
        }
    }

    /// Writes groups with one statement and answers them, unless one is in the others' way.
    async fn write_groups(&mut self, mut batch: Vec<Group>) -> Option<Undone> {
        // Dropped, which answers it.
        batch.retain(|group| group.may() != May::No);
        let deadline = batch.iter().map(|group| group.deadline).min()?;
        let inbox = Arc::clone(&self.inbox);
        let writing = inbox.begin();
        let members = members(&batch);
        let began = Instant::now();
        let written = self.writer.write_until(&members, deadline).await;
        let is_one = middle(&members).is_none();
        match written {
            Ok(Written { outcomes, commit }) => {
                let events = members.len();
                let bytes = batch.iter().map(|group| group.weight).sum();
                self.queue.measured(Measured {
                    events,
                    bytes,
                    groups: batch.len(),
                    took: began.elapsed(),
                    was_full: self.was_full,
                });
                let traced = batch.iter_mut().filter_map(|g| g.traced.as_deref_mut());
                self.writer.traces().committed(traced, began, events);
                if let Some(commit) = commit {
                    writing.commit(commit, bytes);
                } else {
                    drop(writing);
                }
                answer(batch, outcomes, self.writer.metrics()).await;
                None
            }
            Err(AppendError::Blocked) => Some(Undone::Blocked(batch)),
            Err(error) if !is_one && error.is_of_content(&mut self.internal_errors) => {
                Some(Undone::Refused(batch))
            }
            Err(error) => {
                drop(writing);
                let is_in_time = |group: &Group| {
                    group.deadline.saturating_duration_since(deadline) > BACKOFF_MAX
                };
                let (in_time, failed) = match error {
                    AppendError::Unavailable(_) => batch.into_iter().partition(is_in_time),
                    AppendError::Tripped(_) => {
                        let (held, failed) = batch.into_iter().partition(|group| group.is_held);
                        self.queue.give_back(held);
                        self.turn_away(&error).await;
                        (Vec::new(), failed)
                    }
                    _ => (Vec::new(), batch),
                };
                self.fail(failed, &error).await;
                (!in_time.is_empty()).then_some(Undone::InTime(in_time))
            }
        }
    }

    /// The breaker has opened: whoever waits and has not asked to be held is answered at once, and so is whoever comes.
    async fn turn_away(&self, error: &AppendError) {
        for queue in [&self.queue, &self.patient] {
            self.fail(queue.shut(), error).await;
        }
    }

    /// Answers all with the same error.
    async fn fail(&self, groups: Vec<Group>, error: &AppendError) {
        let events = groups.iter().map(|group| group.events.len()).sum();
        let outcomes = (0..events).map(|_| Err(error.twin())).collect();
        answer(groups, outcomes, self.writer.metrics()).await;
    }

    /// Finds out which groups have to wait, and leaves them to the patient lanes.
    async fn set_aside(&mut self, batch: Vec<Group>) {
        if batch.len() == 1 {
            return self.leave(batch);
        }
        self.writer.wait_for_locks(LOCK_TIMEOUT_MIN).await;
        let mut found = 0_usize;
        let mut untried = batch.into_iter();
        for group in untried.by_ref() {
            match self.write_groups(vec![group]).await {
                None => {}
                Some(Undone::Blocked(group) | Undone::Refused(group) | Undone::InTime(group)) => {
                    found = found.saturating_add(1);
                    self.leave(group);
                }
            }
            if found >= FOUND_MAX {
                break;
            }
        }
        self.writer.wait_for_locks(LOCK_TIMEOUT).await;
        self.queue.give_back(untried.collect());
    }

    /// For the patient lanes. At the bound of their queue a group is dropped, which answers it: not stored in time.
    fn leave(&self, groups: Vec<Group>) {
        for group in groups {
            let _ = self.patient.push(group);
        }
    }
}

/// Answers the groups of a batch, whose outcomes stand in their order.
pub(super) async fn answer(batch: Vec<Group>, outcomes: Vec<Outcome>, metrics: &AppendMetrics) {
    let mut outcomes = outcomes.into_iter();
    let mut spent = Vec::with_capacity(batch.len());
    for group in batch {
        let own = outcomes.by_ref().take(group.events.len()).collect();
        spent.push(group.answer(own, metrics));
    }
    // Whoever was answered goes first: it may bring the next batch.
    tokio::task::yield_now().await;
    drop(spent);
}
