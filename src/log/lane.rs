//! Writes batches, one after the other.
//!
//! # Invariants
//! - A group that the database refuses, or that has to wait for another transaction, is the affair of whoever sent it: a quick
//!   lane finds it and leaves what takes long to the patient ones, where each has its turn.
//! - A group is answered once. Until its deadline it survives a lost connection, a restarting database and a deadlock;
//!   since every event has an id, sending it again stores nothing twice.
//! - Nothing of a sequence is written while something that came before it is with the patient lanes.
//! - Nothing is written for whoever may no longer write, at the first attempt or at a later one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{members, middle};
use super::error::{AppendError, Unavailable};
use super::group::{Group, May, Sequence};
use super::inbox::Inbox;
use super::load::Measured;
use super::queue::{Queue, Taken};
use super::writer::{Attempts, BACKOFF_MAX, LOCK_TIMEOUT, Outcome, Stopped, Writer, Written};
use crate::event::limits::RETRY_AFTER_MIN;
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
    /// Those that are to be tried again.
    InTime(Vec<Group>),
    /// Those that may be in time by themselves, of more that were not.
    Fewer(Vec<Group>),
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
    /// Of the batch at hand, what goes back to the queue.
    back: Vec<Group>,
    /// Of which sequences something of the batch at hand is not written yet, but goes back or is with the patient lanes.
    aside: HashSet<Sequence>,
}

impl Lane {
    /// A lane from `queue`, which leaves to `patient` what takes long. What it commits goes to `inbox`.
    #[must_use]
    pub fn new(writer: Writer, inbox: Arc<Inbox>, queue: Arc<Queue>, patient: Arc<Queue>) -> Self {
        Self {
            writer,
            inbox,
            queue,
            patient,
            internal_errors: 0,
            was_full: false,
            back: Vec::new(),
            aside: HashSet::new(),
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
                Some(Undone::Fewer(groups)) => {
                    // All that came after them.
                    self.back.extend(parts.drain(..).flatten());
                    parts.push(groups);
                }
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
        self.give_back().await;
    }

    /// What of these may be written now. Whoever may never again write is dropped, which answers it; others go back to the
    /// queue.
    fn writable(&mut self, groups: Vec<Group>) -> Vec<Group> {
        let mut writable = Vec::with_capacity(groups.len());
        for group in groups {
            let waits = |sequence| self.aside.contains(&sequence);
            match group.may() {
                May::No => {}
                May::Yes if !group.sequence.is_some_and(waits) => writable.push(group),
                May::Yes | May::NotYet => self.keep_back([group]),
            }
        }
        writable
    }

    /// These go back to the queue, and so does what came after them of their sequences.
    fn keep_back(&mut self, groups: impl IntoIterator<Item = Group>) {
        for group in groups {
            self.aside.extend(group.sequence);
            self.back.push(group);
        }
    }

    /// Gives back what is to go back, in the order it came; once, so that nothing that came later is put before it.
    async fn give_back(&mut self) {
        self.aside.clear();
        if self.back.is_empty() {
            return;
        }
        let mut back = std::mem::take(&mut self.back);
        back.sort_by_key(|group| group.received);
        let out = self.queue.give_back(back);
        if !out.is_empty() {
            let error = self.writer.turned_away(RETRY_AFTER_MIN);
            fail(out, &error, self.writer.metrics()).await;
        }
    }

    /// Writes groups with one statement and answers them, unless one is in the others' way.
    async fn write_groups(&mut self, batch: Vec<Group>) -> Option<Undone> {
        let mut batch = self.writable(batch);
        let deadline = batch.iter().map(|group| group.deadline).min()?;
        let inbox = Arc::clone(&self.inbox);
        let writing = inbox.begin();
        let members = members(&batch);
        let began = Instant::now();
        let attempts = Attempts {
            deadline,
            may: &|| batch.iter().all(|group| group.may() == May::Yes),
            has_others: batch.len() > 1,
        };
        let written = self.writer.write_until(&members, attempts).await;
        let is_one = middle(&members).is_none();
        let measured = Measured {
            events: members.len(),
            bytes: batch.iter().map(|group| group.weight).sum(),
            groups: batch.len(),
            took: began.elapsed(),
            was_full: self.was_full,
        };
        match written {
            Ok(Written { outcomes, commit }) => {
                self.queue.measured(measured);
                let traced = batch.iter_mut().filter_map(|g| g.traced.as_deref_mut());
                let all = self.writer.traces();
                all.committed(traced, began, measured.events);
                if let Some(commit) = commit {
                    writing.commit(commit, measured.bytes);
                } else {
                    drop(writing);
                }
                answer(batch, outcomes, self.writer.metrics()).await;
                None
            }
            Err(Stopped::NotAll) => Some(Undone::InTime(batch)),
            Err(Stopped::Failed(AppendError::Blocked)) => Some(Undone::Blocked(batch)),
            Err(Stopped::Failed(error))
                if !is_one && error.is_of_content(&mut self.internal_errors) =>
            {
                Some(Undone::Refused(batch))
            }
            Err(Stopped::Slow(trouble)) => {
                drop(writing);
                self.queue.timed_out(measured);
                self.lessen(batch, trouble).await
            }
            Err(Stopped::Failed(error)) => {
                drop(writing);
                self.failed(batch, deadline, &error).await
            }
        }
    }

    /// After a batch has failed as a whole: answers whoever is not to be tried again.
    async fn failed(
        &mut self,
        batch: Vec<Group>,
        deadline: Instant,
        error: &AppendError,
    ) -> Option<Undone> {
        let is_in_time =
            |group: &Group| group.deadline.saturating_duration_since(deadline) > BACKOFF_MAX;
        let (in_time, failed) = match error {
            AppendError::Unavailable(_) => batch.into_iter().partition(is_in_time),
            AppendError::Tripped(_) => {
                let (held, failed) = batch.into_iter().partition(|group| group.is_held);
                let held: Vec<Group> = held;
                self.keep_back(held);
                self.turn_away(error).await;
                (Vec::new(), failed)
            }
            _ => (Vec::new(), batch),
        };
        fail(failed, error, self.writer.metrics()).await;
        (!in_time.is_empty()).then_some(Undone::InTime(in_time))
    }

    /// After a batch has taken too long: as much of it as may be in time is tried again, and the rest goes back.
    async fn lessen(&mut self, batch: Vec<Group>, trouble: Unavailable) -> Option<Undone> {
        if batch.len() == 1 {
            // The patient lanes store it in parts, if it has any.
            self.leave(batch);
            return None;
        }
        let soon = Instant::now().checked_add(BACKOFF_MAX);
        let is_in_time = |group: &Group| soon.is_some_and(|soon| group.deadline > soon);
        let (mut in_time, late): (Vec<Group>, Vec<Group>) = batch.into_iter().partition(is_in_time);
        if !in_time.is_empty() {
            self.writer.retries(&trouble);
        }
        let (limit, mut events) = (self.queue.batch_limit(), 0_usize);
        let fits = |group: &&Group| {
            events = events.saturating_add(group.events.len());
            events <= limit
        };
        let most = in_time.iter().take_while(fits).count().max(1);
        let rest = in_time.split_off(most.min(in_time.len()));
        self.back.extend(rest);
        let error = AppendError::Unavailable(trouble);
        fail(late, &error, self.writer.metrics()).await;
        (!in_time.is_empty()).then_some(Undone::Fewer(in_time))
    }

    /// The breaker has opened: whoever waits and has not asked to be held is answered at once, and so is whoever comes.
    async fn turn_away(&self, error: &AppendError) {
        for queue in [&self.queue, &self.patient] {
            fail(queue.shut(), error, self.writer.metrics()).await;
        }
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
                Some(
                    Undone::Blocked(group)
                    | Undone::Refused(group)
                    | Undone::InTime(group)
                    | Undone::Fewer(group),
                ) => {
                    found = found.saturating_add(1);
                    self.leave(group);
                }
            }
            if found >= FOUND_MAX {
                break;
            }
        }
        self.writer.wait_for_locks(LOCK_TIMEOUT).await;
        self.keep_back(untried);
    }

    /// For the patient lanes. At the bound of their queue a group is dropped, which answers it: not stored in time.
    fn leave(&mut self, groups: Vec<Group>) {
        for group in groups {
            self.aside.extend(group.sequence);
            let _ = self.patient.push(group);
        }
    }
}

/// Answers all with the same error, but for those of their events of which it is known what became of them.
pub(super) async fn fail(mut groups: Vec<Group>, error: &AppendError, metrics: &AppendMetrics) {
    let mut outcomes = Vec::new();
    for group in &mut groups {
        let mut known = std::mem::take(&mut group.outcomes).into_iter();
        let each = group.events.iter().map(|_| known.next().flatten());
        outcomes.extend(each.map(|known| known.unwrap_or_else(|| Err(error.twin()))));
    }
    answer(groups, outcomes, metrics).await;
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
