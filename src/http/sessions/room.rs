//! What sessions hold, all of them together.
//!
//! # Invariants
//! - Nobody is told to go while there is room. Then those go first who are idle without a subscription, the longest idle
//!   first; then those whose bytes wait to be taken: who has taken nothing for a moment before who just began to wait, and of
//!   these who has most waiting. Whoever takes what it is sent is never told to go.
//! - What is held by those who have been told to go counts as free: they are on their way out.
//! - What a session sends may outlive it: it counts to its end.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{State, Why};
use crate::telemetry::{Eviction, Metrics};

/// Who has taken nothing for so long is slow; before that it may just have been sent much.
const SLOW_AFTER_MS: u64 = 1_000;

/// How much sessions may hold.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes of all sessions.
    pub bytes: usize,
    /// Who has no subscription and has been idle for so long goes first.
    pub idle: Duration,
}

/// What is held, and what has been done about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sessions that are open.
    pub sessions: usize,
    /// Bytes they hold.
    pub bytes: usize,
    /// Bytes they may hold.
    pub bytes_max: usize,
    /// Idle ones that were told to go.
    pub idle: u64,
    /// Slow ones that were told to go.
    pub slow: u64,
    /// Sessions and subscriptions that were refused.
    pub refused: u64,
}

/// The sessions that are open.
#[derive(Debug)]
pub(super) struct Open {
    room: Room,
    entries: HashMap<u64, Entry>,
    usage: Usage,
    metrics: Metrics,
    /// Bytes of those that have been told to go.
    leaving: usize,
}

#[derive(Debug)]
struct Entry {
    state: Arc<State>,
    /// What it holds however idle it is.
    base: usize,
    subscriptions: usize,
    subscribed: usize,
    waiting: usize,
    /// When the client has last taken something, or began to be waited for.
    taken_at: u64,
    is_leaving: bool,
    /// Only what it has sent is left.
    is_ended: bool,
}

impl Entry {
    const fn bytes(&self) -> usize {
        self.base
            .saturating_add(self.subscribed)
            .saturating_add(self.waiting)
    }

    /// Its place among those that can be told to go, the first first; none if it cannot.
    fn rank(&self, now: u64, idle_ms: u64) -> Option<Rank> {
        let active_at = self.state.active_at.load(Ordering::Relaxed);
        let is_idle = self.subscriptions == 0 && now.saturating_sub(active_at) >= idle_ms;
        if self.is_leaving {
            None
        } else if self.waiting > 0 {
            let is_slow = now.saturating_sub(self.taken_at) >= SLOW_AFTER_MS;
            let class = if is_slow { 1 } else { 2 };
            Some((class, Reverse(self.waiting), self.taken_at))
        } else {
            (is_idle && self.base > 0).then_some((0, Reverse(0), active_at))
        }
    }
}

type Rank = (u8, Reverse<usize>, u64);

impl Open {
    pub(super) fn new(room: Room, metrics: Metrics) -> Self {
        Self {
            metrics,
            room,
            entries: HashMap::new(),
            usage: Usage {
                bytes_max: room.bytes,
                ..Usage::default()
            },
            leaving: 0,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            sessions: self.entries.len(),
            ..self.usage
        }
    }

    pub(super) fn states(&self, is_wanted: impl Fn(&Arc<State>) -> bool) -> Vec<Arc<State>> {
        let last = self.entries.values().filter(|one| one.base > 0);
        let states = last.map(|one| &one.state);
        states.filter(|state| is_wanted(state)).cloned().collect()
    }

    pub(super) fn add(&mut self, id: u64, state: Arc<State>, base: usize) {
        self.usage.bytes = self.usage.bytes.saturating_add(base);
        let entry = Entry {
            state,
            base,
            subscriptions: 0,
            subscribed: 0,
            waiting: 0,
            taken_at: 0,
            is_leaving: false,
            is_ended: false,
        };
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.change(id, |entry| {
            (entry.base, entry.subscribed) = (0, 0);
            entry.is_ended = true;
        });
    }

    /// Sets subscriptions and what they hold; what they were before.
    pub(super) fn subscribe(&mut self, id: u64, wanted: (usize, usize)) -> (usize, usize) {
        let mut before = (0, 0);
        self.change(id, |entry| {
            before = (entry.subscriptions, entry.subscribed);
            (entry.subscriptions, entry.subscribed) = wanted;
        });
        before
    }

    pub(super) fn wait(&mut self, id: u64, bytes: usize, now: u64) {
        self.change(id, |entry| {
            if entry.waiting == 0 {
                entry.taken_at = now;
            }
            entry.waiting = entry.waiting.saturating_add(bytes);
        });
    }

    pub(super) fn taken(&mut self, id: u64, bytes: usize, now: u64) {
        self.change(id, |entry| {
            entry.taken_at = now;
            entry.waiting = entry.waiting.saturating_sub(bytes);
        });
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = entry.bytes();
        change(entry);
        let after = entry.bytes();
        let changed = |all: usize| all.saturating_sub(before).saturating_add(after);
        self.usage.bytes = changed(self.usage.bytes);
        if entry.is_leaving {
            self.leaving = changed(self.leaving);
        }
        if entry.is_ended && entry.waiting == 0 {
            self.entries.remove(&id);
        }
    }

    fn has_room(&self) -> bool {
        self.usage.bytes.saturating_sub(self.leaving) <= self.room.bytes
    }

    /// Tells sessions to go until what the others hold is within bounds; `but` for the one that asks. Whether there is room.
    pub(super) fn make_room(&mut self, now: u64, but: Option<u64>) -> bool {
        if self.has_room() {
            return true;
        }
        let idle_ms = u64::try_from(self.room.idle.as_millis()).unwrap_or(u64::MAX);
        let rank = |(id, entry): (&u64, &Entry)| Some((entry.rank(now, idle_ms)?, *id));
        let mut ranked: Vec<(Rank, u64)> = self.entries.iter().filter_map(rank).collect();
        ranked.retain(|(_, id)| Some(*id) != but);
        ranked.sort_unstable();
        for ((class, ..), id) in ranked {
            if self.has_room() {
                break;
            }
            self.tell(id, class);
        }
        let has_room = self.has_room();
        if !has_room && but.is_some() {
            self.usage.refused = self.usage.refused.saturating_add(1);
            self.metrics.connections.evicted(Eviction::Refused);
        }
        has_room
    }

    fn tell(&mut self, id: u64, class: u8) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.is_leaving = true;
        self.leaving = self.leaving.saturating_add(entry.bytes());
        let (cause, count) = if class == 0 {
            (Eviction::Idle, &mut self.usage.idle)
        } else {
            (Eviction::Slow, &mut self.usage.slow)
        };
        *count = count.saturating_add(1);
        self.metrics.connections.evicted(cause);
        entry.state.tell(Why::Evicted(cause));
    }
}
