//! Groups of events that wait for a lane.
//!
//! # Invariants
//! - Bounded by groups and by bytes, in total, for each priority and for each tenant; at the bound a group is refused at
//!   once, with the time after which there may be room.
//! - The most urgent first; within a priority tenants take turns, and within a tenant the order is that in which groups
//!   came.
//! - A low event waits for company while a batch is under way, no longer than its priority allows; all others go with the
//!   next free lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::classes::{Classes, NoRoom};
use super::drained::Drained;
use super::gather::Batch;
use super::group::{Group, Sequence, UnderWay};
use super::load::{Load, Measured};
use crate::event::limits::BATCH_EVENTS_MAX;
use crate::event::{ByPriority, Priority};

/// Whether those may be written that may not yet is asked as often as this.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Groups that wait for a lane.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
    /// Groups are here for as long as it takes: those that were let in are not refused because others wait.
    is_patient: bool,
}

#[derive(Debug)]
struct QueueState {
    classes: Classes,
    /// How many groups of a sequence the lanes have.
    under_way: HashMap<Sequence, usize>,
    /// Only those are let in who wait until the database is there again.
    is_shut: bool,
    /// When lanes began to take what waits here, if that was not always so.
    opened: Option<Instant>,
    /// Batches that the lanes have.
    batches: usize,
    load: Load,
    drained: Drained,
}

/// A batch that a lane has taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) groups: Vec<Group>,
    /// More waited than it could hold.
    pub(super) was_full: bool,
    pub(super) busy: Busy,
}

/// A lane has a batch; dropped when it is done with it.
#[derive(Debug)]
pub(super) struct Busy(Arc<Queue>);

impl Drop for Busy {
    fn drop(&mut self) {
        {
            let mut state = self.0.lock();
            state.batches = state.batches.saturating_sub(1);
        }
        // Who waited for company has none to wait for.
        self.0.arrived.notify_one();
    }
}

/// Why a group is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The database is away.
    Shut,
    /// There is no room.
    Full {
        /// When there may be.
        retry_after: Duration,
    },
}

/// What there is to do for a lane.
enum Next {
    Batch(Taken),
    /// Nothing before then.
    NotBefore(Instant),
    Nothing,
}

impl QueueState {
    /// For how long lanes have taken what waits here.
    fn at_work(&self, now: Instant) -> Duration {
        match self.opened {
            _ if self.is_shut => Duration::ZERO,
            Some(opened) => now.saturating_duration_since(opened),
            None => Duration::MAX,
        }
    }
}

impl Queue {
    /// A queue from which batches of at most `events_max` events are taken.
    pub(super) fn new(events_max: usize) -> Self {
        Self {
            state: Mutex::new(QueueState {
                classes: Classes::default(),
                under_way: HashMap::new(),
                is_shut: false,
                opened: None,
                batches: 0,
                load: Load::new(events_max),
                drained: Drained::new(Instant::now()),
            }),
            arrived: Notify::new(),
            is_patient: false,
        }
    }

    /// A queue for what takes long.
    pub(super) fn patient() -> Self {
        Self {
            is_patient: true,
            ..Self::new(BATCH_EVENTS_MAX)
        }
    }

    /// Lets a group in, at the end of its tenant's.
    pub(super) fn push(&self, group: Group) -> Result<(), Refusal> {
        {
            let mut state = self.lock();
            // Lanes for what takes long ask the breaker themselves, and sleep here when it closes: none would open it again.
            if state.is_shut && !group.is_held && !self.is_patient {
                return Err(Refusal::Shut);
            }
            let now = Instant::now();
            let at_work = state.at_work(now);
            let room = state.classes.room(&group, self.is_patient, at_work);
            if let Err(no_room) = room {
                let NoRoom { in_the_way, waited } = no_room;
                let retry_after = state
                    .drained
                    .retry_after(group.class, &in_the_way, waited, now);
                return Err(Refusal::Full { retry_after });
            }
            if group.class <= Priority::High {
                state.load.urgent(group.received);
            }
            state.classes.push_back(group);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// The database is away: gives out whoever has not asked to be held until it is back, and lets no more of them in until
    /// [`Queue::open`].
    pub(super) fn shut(&self) -> Vec<Group> {
        let mut state = self.lock();
        state.is_shut = true;
        state.drained.pause();
        state.classes.take_those(|group| !group.is_held)
    }

    /// All are let in again.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.is_shut, false) {
            state.opened = Some(Instant::now());
        }
    }

    /// Gives out those whose time is over, who would wait here for as long as no lane takes them. Of what takes long each has a
    /// last turn, unless nobody has turns.
    pub(super) fn take_late(&self, now: Instant) -> Vec<Group> {
        let mut state = self.lock();
        if self.is_patient && !state.is_shut {
            return Vec::new();
        }
        state.classes.take_those(|group| group.deadline <= now)
    }

    /// Takes back, as the first, what a lane has not tried. Gives out whoever is not to wait here, since it has been shut
    /// meanwhile.
    pub(super) fn give_back(&self, mut groups: Vec<Group>) -> Vec<Group> {
        for group in &mut groups {
            group.under_way = None;
        }
        let mut state = self.lock();
        let is_shut = state.is_shut;
        let (back, out): (Vec<Group>, Vec<Group>) = groups
            .into_iter()
            .partition(|group| group.is_held || !is_shut);
        for group in back.into_iter().rev() {
            state.classes.give_back(group);
        }
        drop(state);
        self.arrived.notify_one();
        out
    }

    /// Waits for the next batch: what is there, up to the bounds of one statement. A group with expectations comes
    /// alone, and of two groups that hold the same id the second waits for the next batch.
    pub(super) async fn next_batch(self: &Arc<Self>) -> Taken {
        loop {
            match self.take() {
                Next::Batch(taken) => return taken,
                Next::NotBefore(then) => {
                    let arrived = self.arrived.notified();
                    let _ = tokio::time::timeout_at(then.into(), arrived).await;
                }
                Next::Nothing => self.arrived.notified().await,
            }
        }
    }

    /// Waits for the next group, and takes it alone, late or not.
    pub(super) async fn next_group(&self) -> Group {
        loop {
            {
                let mut state = self.lock();
                if let Some(group) = state.classes.next() {
                    if !state.classes.is_empty() {
                        self.arrived.notify_one();
                    }
                    return group;
                }
            }
            self.arrived.notified().await;
        }
    }

    fn take(self: &Arc<Self>) -> Next {
        let now = Instant::now();
        let mut state = self.lock();
        let QueueState {
            classes,
            under_way,
            batches,
            load,
            drained,
            ..
        } = &mut *state;
        if *batches > 0
            && let Some(until) = classes.company_until()
            && now < until
        {
            return Next::NotBefore(until);
        }
        let mut batch = Batch::gather(classes, under_way, load.limit(), now);
        let is_more = !classes.is_empty();
        if batch.groups.is_empty() {
            return if batch.is_to_be_asked_again {
                Next::NotBefore(now.checked_add(ASK_AGAIN).unwrap_or(now))
            } else {
                Next::Nothing
            };
        }
        *batches = batches.saturating_add(1);
        let mut taken = ByPriority::<u32>::default();
        for group in &batch.groups {
            let count = taken.of_mut(group.class);
            *count = count.saturating_add(1);
        }
        let bytes = batch.groups.iter().map(|group| group.weight).sum();
        drained.took(&taken, bytes, is_more, now);
        for group in &mut batch.groups {
            if let Some(sequence) = group.sequence {
                let groups = under_way.entry(sequence).or_default();
                *groups = groups.saturating_add(1);
                group.under_way = Some(UnderWay::new(sequence, Arc::clone(self)));
            }
        }
        drop(state);
        if is_more {
            self.arrived.notify_one();
        }
        Next::Batch(Taken {
            groups: batch.groups,
            was_full: is_more,
            busy: Busy(Arc::clone(self)),
        })
    }

    /// A group of the sequence is no longer under way.
    pub(super) fn landed(&self, sequence: Sequence) {
        {
            let mut state = self.lock();
            if let Some(groups) = state.under_way.get_mut(&sequence) {
                *groups = groups.saturating_sub(1);
                if *groups == 0 {
                    state.under_way.remove(&sequence);
                }
            }
        }
        self.arrived.notify_one();
    }

    /// A batch has been committed.
    pub(super) fn measured(&self, batch: Measured) {
        self.lock().load.measured(batch, Instant::now());
    }

    /// Groups and bytes that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.lock().classes.size()
    }

    /// Groups that wait, by priority.
    #[must_use]
    pub fn by_priority(&self) -> ByPriority<usize> {
        self.lock().classes.groups()
    }

    /// A batch has not been stored within the time that a statement may take.
    pub(super) fn timed_out(&self, batch: Measured) {
        self.lock().load.timed_out(batch);
    }

    /// How many events a batch may hold now.
    #[must_use]
    pub fn batch_limit(&self) -> usize {
        self.lock().load.limit()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
