//! Groups of one class that wait, tenant by tenant: whose turn it is.
//!
//! # Invariants
//! - Tenants take turns, a group each; within a tenant the order is that in which groups came.
//! - A tenant is in the turns exactly while it has groups here, but for those whose turn has not ended.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::group::{Group, Sequence};
use crate::event::Tenant;

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

    /// Groups and bytes of one tenant.
    pub(super) fn of(&self, tenant: &Tenant) -> (usize, usize) {
        let line = self.tenants.get(tenant);
        line.map_or((0, 0), |line| (line.groups.len(), line.bytes))
    }

    /// How long the tenant's first group has waited.
    pub(super) fn waited(&self, tenant: &Tenant, now: Instant) -> Duration {
        let first = self
            .tenants
            .get(tenant)
            .and_then(|line| line.groups.front());
        first.map_or(Duration::ZERO, |group| {
            now.saturating_duration_since(group.received)
        })
    }

    /// When the group came whose turn it is.
    pub(super) fn next_received(&self) -> Option<Instant> {
        let tenant = self.turns.front()?;
        let group = self.tenants.get(tenant)?.groups.front()?;
        Some(group.received)
    }

    /// Takes out what waits of a sequence, in its order.
    pub(super) fn take_sequence(&mut self, tenant: &Tenant, sequence: Sequence) -> Vec<Group> {
        self.take_of(tenant, &|group| group.sequence == Some(sequence))
    }

    /// Takes out all groups like this, each tenant's in their order.
    pub(super) fn take_those(&mut self, is_like_this: &impl Fn(&Group) -> bool) -> Vec<Group> {
        let tenants: Vec<Tenant> = self.tenants.keys().cloned().collect();
        let of_tenant = |tenant| self.take_of(tenant, is_like_this);
        tenants.iter().flat_map(of_tenant).collect()
    }

    fn take_of(&mut self, tenant: &Tenant, is_like_this: &impl Fn(&Group) -> bool) -> Vec<Group> {
        let Some(line) = self.tenants.get_mut(tenant) else {
            return Vec::new();
        };
        // Asked again and again of many: what stays is not moved.
        if !line.groups.iter().any(is_like_this) {
            return Vec::new();
        }
        let (taken, left): (VecDeque<Group>, VecDeque<Group>) =
            line.groups.drain(..).partition(is_like_this);
        line.groups = left;
        let bytes: usize = taken.iter().map(|group| group.weight).sum();
        line.bytes = line.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.groups = self.groups.saturating_sub(taken.len());
        if line.groups.is_empty() && line.is_in_turns {
            self.tenants.remove(tenant);
            self.turns.retain(|other| other != tenant);
        }
        taken.into()
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

    /// The next group of the tenant whose turn it is, which is out of the turns until the caller ends this one.
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
