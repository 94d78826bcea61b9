//! Groups that wait, tenant by tenant: whose turn it is, and how much of the queue is whose.
//!
//! # Invariants
//! - Tenants take turns, a group each; within a tenant the order is that in which groups came.
//! - One tenant cannot fill the queue: see [`share_of`].
//! - A tenant is in the turns exactly while it has groups here, but for those whose turn has not ended.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::queue::Group;
use crate::event::Tenant;
use crate::event::limits::{APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, share_of};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    tenants: HashMap<Tenant, Line>,
    turns: VecDeque<Tenant>,
    groups: usize,
    bytes: usize,
}

/// The groups of one tenant.
#[derive(Debug, Default)]
struct Line {
    groups: VecDeque<Group>,
    bytes: usize,
    is_in_turns: bool,
}

impl Waiting {
    /// Groups and bytes.
    pub(super) const fn size(&self) -> (usize, usize) {
        (self.groups, self.bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Whether there is room for another group of this tenant. For one of any size, if nothing waits.
    pub(super) fn has_room(&self, tenant: &Tenant, weight: usize) -> bool {
        if self.is_empty() {
            return true;
        }
        let line = self.tenants.get(tenant);
        let (groups, bytes) = line.map_or((0, 0), |line| (line.groups.len(), line.bytes));
        let free = APPEND_QUEUE_MAX.saturating_sub(self.groups);
        let bytes_free = APPEND_QUEUE_BYTES_MAX.saturating_sub(self.bytes);
        let (Some(free), Some(bytes_free)) = (free.checked_sub(1), bytes_free.checked_sub(weight))
        else {
            return false;
        };
        groups < share_of(free) && bytes.saturating_add(weight) <= share_of(bytes_free)
    }

    /// Puts a group at the end of its tenant's.
    pub(super) fn push_back(&mut self, group: Group) {
        let tenant = group.tenant.clone();
        self.line_for(&group).groups.push_back(group);
        self.end_turn(&tenant);
    }

    /// Puts a group back before all others of its tenant, which is to go on with [`Waiting::end_turn`] or
    /// [`Waiting::be_next`].
    pub(super) fn put_back(&mut self, group: Group) {
        self.line_for(&group).groups.push_front(group);
    }

    /// The next group of the tenant whose turn it is, which is out of the turns until the caller ends this one. Those whose
    /// deadline has passed are dropped: they were answered, and would keep others waiting.
    pub(super) fn next_in_time(&mut self, now: Instant) -> Option<Group> {
        loop {
            let group = self.next()?;
            if group.deadline > now {
                return Some(group);
            }
            self.be_next(&group.tenant);
        }
    }

    /// The next group, late or not; else as [`Waiting::next_in_time`].
    pub(super) fn next(&mut self) -> Option<Group> {
        let tenant = self.turns.pop_front()?;
        let line = self.tenants.get_mut(&tenant)?;
        line.is_in_turns = false;
        let group = line.groups.pop_front()?;
        line.bytes = line.bytes.saturating_sub(group.weight);
        self.bytes = self.bytes.saturating_sub(group.weight);
        self.groups = self.groups.saturating_sub(1);
        Some(group)
    }

    /// All others have their turns before the tenant's next.
    pub(super) fn end_turn(&mut self, tenant: &Tenant) {
        if self.is_to_enter(tenant) {
            self.turns.push_back(tenant.clone());
        }
    }

    /// The tenant's turn is the next.
    pub(super) fn be_next(&mut self, tenant: &Tenant) {
        if self.is_to_enter(tenant) {
            self.turns.push_front(tenant.clone());
        }
    }

    /// Whether the tenant has groups and no turn, which it is then given.
    fn is_to_enter(&mut self, tenant: &Tenant) -> bool {
        let Some(line) = self.tenants.get_mut(tenant) else {
            return false;
        };
        if line.groups.is_empty() {
            self.tenants.remove(tenant);
            return false;
        }
        !std::mem::replace(&mut line.is_in_turns, true)
    }

    /// Counts a group that is put in.
    fn line_for(&mut self, group: &Group) -> &mut Line {
        self.bytes = self.bytes.saturating_add(group.weight);
        self.groups = self.groups.saturating_add(1);
        let line = self.tenants.entry(group.tenant.clone()).or_default();
        line.bytes = line.bytes.saturating_add(group.weight);
        line
    }
}
