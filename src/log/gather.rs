//! What one statement takes: groups that go together, the most urgent first.
//!
//! # Invariants
//! - Holds whole groups, of each tenant and class in the order they came, and no id twice. Tenants take turns.
//! - Groups of one sequence are written in the order they came: while one is under way, the others wait.
//! - A group whose deadline has passed is dropped: it was answered. So is one that nobody may write any more, which answers it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::classes::Classes;
use super::group::{Group, May, Sequence};
use crate::event::limits::BATCH_BYTES_MAX;
use crate::event::{ByPriority, EventId, Priority, Tenant};

/// So many tenants are passed over whose next group does not go into a batch, until it is closed.
const PASSED_MAX: usize = 64;

/// What one statement takes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) groups: Vec<Group>,
    seen: HashSet<(Tenant, EventId)>,
    pub(super) events: usize,
    bytes: usize,
    is_closed: bool,
    /// Some may not be written yet, of which nobody will tell.
    pub(super) is_to_be_asked_again: bool,
    limit: usize,
}

impl Batch {
    /// What there is, up to `limit` events unless one group alone holds more.
    pub(super) fn gather(
        classes: &mut Classes,
        under_way: &HashMap<Sequence, usize>,
        limit: usize,
        now: Instant,
    ) -> Self {
        let mut batch = Self {
            limit,
            ..Self::default()
        };
        if let Some(starved) = classes.starved() {
            batch.fill(classes, starved, under_way, now, 1);
        }
        for priority in Priority::ALL {
            batch.fill(classes, priority, under_way, now, usize::MAX);
        }
        let mut served = ByPriority::default();
        for group in &batch.groups {
            *served.of_mut(group.class) = true;
        }
        classes.served(&served, now);
        batch
    }

    /// Takes in what goes of a class, at most so many groups.
    fn fill(
        &mut self,
        classes: &mut Classes,
        class: Priority,
        under_way: &HashMap<Sequence, usize>,
        now: Instant,
        most: usize,
    ) {
        let (mut kept_waiting, mut passed) = (Vec::new(), Vec::new());
        let most = self.groups.len().saturating_add(most);
        while !self.is_closed && passed.len() < PASSED_MAX && self.groups.len() < most {
            let Some(group) = classes.take(class) else {
                break;
            };
            let tenant = group.tenant.clone();
            let may = group.may();
            if group.deadline <= now || may == May::No {
                // Dropped: the others need not wait for their turn because of it.
                classes.class(class).be_next(&tenant);
                continue;
            }
            let is_kept_waiting = |sequence| under_way.contains_key(&sequence);
            self.is_to_be_asked_again |= may == May::NotYet;
            if may == May::NotYet || group.sequence.is_some_and(is_kept_waiting) {
                kept_waiting.push(group);
            } else if let Some(group) = self.add(group, classes.is_empty()) {
                classes.put_back(group);
                passed.push(tenant);
                continue;
            }
            classes.class(class).end_turn(&tenant);
        }
        for group in kept_waiting.into_iter().rev() {
            let tenant = group.tenant.clone();
            classes.put_back(group);
            if !passed.contains(&tenant) {
                classes.class(class).end_turn(&tenant);
            }
        }
        for tenant in passed.iter().rev() {
            classes.class(class).be_next(tenant);
        }
    }

    /// Takes a group in, or gives it back if it does not go with the others. `is_last`: nothing follows.
    fn add(&mut self, group: Group, is_last: bool) -> Option<Group> {
        let events = self.events.saturating_add(group.events.len());
        let bytes = self.bytes.saturating_add(group.weight);
        let is_over = events > self.limit || bytes > BATCH_BYTES_MAX || group.has_expectations();
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
        let is_full = events >= self.limit || bytes >= BATCH_BYTES_MAX;
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
