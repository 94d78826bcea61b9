//! Groups that wait, by priority: who goes first, and who is shed first.
//!
//! # Invariants
//! - The more urgent class goes first. One that has been passed over too often, beyond what its priority allows, has the
//!   first place in the next batch: nobody starves.
//! - Low is refused first and critical last: each class finds room that the classes below may not take.
//! - Groups of one sequence wait in one class, that of the most urgent among them: priority never reorders them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::drained::InTheWay;
use super::group::{Group, Sequence};
use super::waiting::Waiting;
use crate::event::limits::{APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, share_of};
use crate::event::{ByPriority, Priority, Tenant};

/// A class that has waited longer than it need is passed over so many times, and then served.
const PASSED_OVER_MAX: u32 = 8;

/// How long an event of this priority may wait to be batched. Nobody waits for company while nothing is under way.
#[must_use]
pub const fn allowance(priority: Priority) -> Duration {
    match priority {
        Priority::Critical => Duration::ZERO,
        Priority::High => Duration::from_millis(5),
        Priority::Normal => Duration::from_millis(25),
        Priority::Low => Duration::from_millis(250),
    }
}

/// Where a tenant's first group of this class has waited for so long, and a crowd behind it, no more of the class are taken
/// in: they would wait for longer still. Critical ones are refused by the bounds of the queue alone.
const fn patience(priority: Priority) -> Option<Duration> {
    match priority {
        Priority::Critical => None,
        Priority::High => Some(Duration::from_secs(8)),
        Priority::Normal => Some(Duration::from_secs(4)),
        Priority::Low => Some(Duration::from_secs(1)),
    }
}

/// Fewer groups are no crowd: a database that is away for a moment is no overload.
const CROWD: usize = 64;

/// What part of the queue, in tenths, this class may fill together with all others.
const fn tenths(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 10,
        Priority::High => 9,
        Priority::Normal => 8,
        Priority::Low => 5,
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NoRoom {
    /// What has to leave first.
    pub(super) in_the_way: InTheWay,
    /// How long those before it have waited.
    pub(super) waited: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Classes {
    classes: ByPriority<Class>,
    sequences: HashMap<Sequence, Place>,
}

#[derive(Debug, Default)]
struct Class {
    waiting: Waiting,
    passed_over: u32,
}

/// Where the groups of a sequence wait.
#[derive(Debug)]
struct Place {
    class: Priority,
    groups: usize,
}

impl Classes {
    pub(super) fn is_empty(&self) -> bool {
        self.each().all(|(_, class)| class.waiting.is_empty())
    }

    /// Groups and bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        self.each().fold((0, 0), |(groups, bytes), (_, class)| {
            let (more, more_bytes) = class.waiting.size();
            (
                groups.saturating_add(more),
                bytes.saturating_add(more_bytes),
            )
        })
    }

    /// Groups of each class.
    pub(super) fn groups(&self) -> ByPriority<usize> {
        ByPriority::new(|priority| self.classes.of(priority).waiting.size().0)
    }

    fn each(&self) -> impl Iterator<Item = (Priority, &Class)> {
        Priority::ALL
            .into_iter()
            .map(|priority| (priority, self.classes.of(priority)))
    }

    pub(super) const fn class(&mut self, priority: Priority) -> &mut Waiting {
        &mut self.classes.of_mut(priority).waiting
    }

    /// Whether there is room for another group. For one of any size, if nothing waits. `at_work`: for how long lanes have taken
    /// what waits here; what was waited before that is nobody's lateness.
    ///
    /// # Errors
    /// If its class, or its tenant, has as much here as it may.
    pub(super) fn room(
        &self,
        group: &Group,
        is_patient: bool,
        at_work: Duration,
    ) -> Result<(), NoRoom> {
        let (tenant, priority, weight) = (&group.tenant, group.class, group.weight);
        let (all, all_bytes) = self.size();
        if all == 0 {
            return Ok(());
        }
        let waited = self
            .classes
            .of(priority)
            .waiting
            .waited(tenant, Instant::now())
            .min(at_work);
        let (groups, bytes) =
            self.each()
                .fold((0_usize, 0_usize), |(groups, bytes), (_, class)| {
                    let (more, more_bytes) = class.waiting.of(tenant);
                    (
                        groups.saturating_add(more),
                        bytes.saturating_add(more_bytes),
                    )
                });
        let part = |max: usize| (max / 10).saturating_mul(tenths(priority));
        let free = part(APPEND_QUEUE_MAX).checked_sub(all.saturating_add(1));
        let bytes_free = part(APPEND_QUEUE_BYTES_MAX).checked_sub(all_bytes.saturating_add(weight));
        let has_room = free.zip(bytes_free).is_some_and(|(free, bytes_free)| {
            groups < share_of(free) && bytes.saturating_add(weight) <= share_of(bytes_free)
        });
        // Who has asked to be held says itself for how long it waits.
        if has_room && (is_patient || group.is_held) {
            return Ok(());
        }
        let (own, _) = self.classes.of(priority).waiting.of(tenant);
        let is_soon = |patience| waited < patience || own < CROWD;
        if has_room && patience(priority).is_none_or(is_soon) {
            return Ok(());
        }
        let over = |held: usize, max: Option<usize>| held.saturating_sub(max.unwrap_or(held));
        // Of those that came in one burst each waits for longer than the one before, until few are left.
        let is_late = patience(priority).is_some_and(|patience| waited >= patience);
        let crowd = own.saturating_add(1).saturating_sub(CROWD);
        let late = if is_late { crowd } else { 0 };
        let in_the_way = InTheWay {
            groups: over(all.saturating_add(1), Some(part(APPEND_QUEUE_MAX))),
            bytes: over(
                all_bytes.saturating_add(weight),
                Some(part(APPEND_QUEUE_BYTES_MAX)),
            ),
            of_class: late,
            of_tenant: over(groups.saturating_add(1), free.map(share_of)),
            share: ratio(groups, all),
        };
        Err(NoRoom { in_the_way, waited })
    }

    /// Puts a group at the end of its tenant's.
    pub(super) fn push_back(&mut self, mut group: Group) {
        if let Some(sequence) = group.sequence {
            group.class = self.join(sequence, group.class, &group.tenant);
        }
        self.class(group.class).push_back(group);
    }

    /// Puts a group back before all others of its tenant and class, which is returned: the caller sees to the turn.
    pub(super) fn put_back(&mut self, mut group: Group) -> Priority {
        if let Some(sequence) = group.sequence {
            group.class = self.join(sequence, group.class, &group.tenant);
        }
        let class = group.class;
        self.class(class).put_back(group);
        class
    }

    /// A group of this sequence enters: all of them wait in the class of the most urgent.
    fn join(&mut self, sequence: Sequence, class: Priority, tenant: &Tenant) -> Priority {
        let place = self
            .sequences
            .entry(sequence)
            .or_insert(Place { class, groups: 0 });
        place.groups = place.groups.saturating_add(1);
        let before = place.class;
        if class >= before {
            return before;
        }
        place.class = class;
        for mut group in self.class(before).take_sequence(tenant, sequence) {
            group.class = class;
            self.class(class).push_back(group);
        }
        class
    }

    /// Takes a group back as its tenant's next.
    pub(super) fn give_back(&mut self, group: Group) {
        let tenant = group.tenant.clone();
        let class = self.put_back(group);
        self.class(class).be_next(&tenant);
    }

    /// The most urgent group, late or not, whose tenant's turn then ends.
    pub(super) fn next(&mut self) -> Option<Group> {
        let class = self
            .starved()
            .into_iter()
            .chain(Priority::ALL)
            .find(|priority| !self.classes.of(*priority).waiting.is_empty())?;
        let group = self.take(class)?;
        self.class(class).end_turn(&group.tenant);
        Some(group)
    }

    /// The group of a class whose turn it is; see [`Waiting::next`].
    pub(super) fn take(&mut self, class: Priority) -> Option<Group> {
        let group = self.class(class).next()?;
        self.left(&group);
        Some(group)
    }

    /// Takes out all groups like this, each tenant's in their order.
    pub(super) fn take_those(&mut self, is_like_this: impl Fn(&Group) -> bool) -> Vec<Group> {
        let mut taken = Vec::new();
        for priority in Priority::ALL {
            taken.extend(self.class(priority).take_those(&is_like_this));
        }
        for group in &taken {
            self.left(group);
        }
        taken
    }

    /// A group was taken out.
    fn left(&mut self, group: &Group) {
        if let Some(sequence) = group.sequence
            && let Some(place) = self.sequences.get_mut(&sequence)
        {
            place.groups = place.groups.saturating_sub(1);
            if place.groups == 0 {
                self.sequences.remove(&sequence);
            }
        }
    }

    /// The class that has been passed over too often, if there is one.
    pub(super) fn starved(&self) -> Option<Priority> {
        let is_starved = |(_, class): &(Priority, &Class)| class.passed_over >= PASSED_OVER_MAX;
        self.each().find(is_starved).map(|(priority, _)| priority)
    }

    /// A batch was made that holds groups of these classes.
    pub(super) fn served(&mut self, served: &ByPriority<bool>, now: Instant) {
        for priority in Priority::ALL {
            let is_due = self.is_due(priority, now);
            let class = self.classes.of_mut(priority);
            class.passed_over = if *served.of(priority) || !is_due {
                0
            } else {
                class.passed_over.saturating_add(1)
            };
        }
    }

    /// Whether there is a group that has waited for as long as its priority allows.
    fn is_due(&self, priority: Priority, now: Instant) -> bool {
        let next = self.classes.of(priority).waiting.next_received();
        next.is_some_and(|at| now.saturating_duration_since(at) >= allowance(priority))
    }

    /// When the first of those that wait for company is due, if they are all there is: low ones alone do.
    pub(super) fn company_until(&self) -> Option<Instant> {
        let is_urgent = |(priority, class): (Priority, &Class)| {
            priority != Priority::Low && !class.waiting.is_empty()
        };
        if self.each().any(is_urgent) {
            return None;
        }
        let next = self.classes.of(Priority::Low).waiting.next_received()?;
        next.checked_add(allowance(Priority::Low))
    }
}

/// What part of all some are.
fn ratio(some: usize, all: usize) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    float(some) / float(all.max(1))
}
