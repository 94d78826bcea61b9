//! Who gives way where the window is full.
//!
//! # Invariants
//! - First tenants that nobody reads and for which nothing has come lately, the longest unused first; each keeps its newest
//!   events, so that nobody's flood pushes out another's window whole.
//! - Then whoever holds most, of whichever is scarce: one tenant's flood costs its own events.
//! - What gave way is read from history.

use super::Window;
use crate::event::Tenant;
use crate::event::limits::{WINDOW_IDLE, WINDOW_IDLE_EVENTS};

/// Events that gave way at once at most: the search for who is next is not made for each.
const SLICE: usize = 64;

/// Events that gave way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Of tenants that nobody uses.
    pub idle: u64,
    /// Of the tenant that held most.
    pub largest: u64,
}

impl Window {
    /// How many have given way since this was asked last.
    pub fn take_evicted(&mut self) -> Evicted {
        std::mem::take(&mut self.evicted)
    }

    /// Drops some of the oldest events of whoever is to give way.
    pub(super) fn evict(&mut self, is_read: &dyn Fn(&Tenant) -> bool) {
        if let Some(tenant) = self.unused(is_read) {
            let dropped = self.drop_oldest(&tenant, WINDOW_IDLE_EVENTS);
            self.evicted.idle = self.evicted.idle.saturating_add(dropped);
        } else if let Some((_, tenant)) = self.by_load.last().cloned() {
            let dropped = self.drop_oldest(&tenant, 0);
            self.evicted.largest = self.evicted.largest.saturating_add(dropped);
        }
    }

    /// The tenant that nobody has used for longest, if that is long and it has more than it keeps. Each is looked at once in
    /// that time at most: who is found in use has its place behind the others.
    fn unused(&mut self, is_read: &dyn Fn(&Tenant) -> bool) -> Option<Tenant> {
        let idle_ms = i64::try_from(WINDOW_IDLE.as_millis()).unwrap_or(i64::MAX);
        let now = self.head.at_ms;
        loop {
            let (used_at_ms, _) = self.by_use.first()?;
            if now.saturating_sub(*used_at_ms) < idle_ms {
                return None;
            }
            let (_, tenant) = self.by_use.pop_first()?;
            let Some(held) = self.tenants.get_mut(&tenant) else {
                continue;
            };
            held.used_at_ms = None;
            if held.events.len() <= WINDOW_IDLE_EVENTS {
                continue;
            }
            let newest = held.events.back().map_or(now, |event| event.position.at_ms);
            let used_at_ms = if is_read(&tenant) { now } else { newest };
            held.used_at_ms = Some(used_at_ms);
            self.by_use.insert((used_at_ms, tenant.clone()));
            if now.saturating_sub(used_at_ms) >= idle_ms {
                return Some(tenant);
            }
        }
    }

    /// Drops a slice of the tenant's oldest events, down to those it keeps; how many.
    fn drop_oldest(&mut self, tenant: &Tenant, kept: usize) -> u64 {
        let bytes_of_event = self.bytes_of_event();
        let Some(held) = self.tenants.get_mut(tenant) else {
            return 0;
        };
        self.by_load
            .remove(&(held.load(bytes_of_event), tenant.clone()));
        let mut dropped = 0_u64;
        for _ in 0..SLICE.min(held.events.len().saturating_sub(kept)) {
            let Some(event) = held.events.pop_front() else {
                break;
            };
            let weight = event.weight();
            held.after = event.position.seq;
            held.bytes = held.bytes.saturating_sub(weight);
            self.bytes = self.bytes.saturating_sub(weight);
            self.events = self.events.saturating_sub(1);
            dropped = dropped.saturating_add(1);
            if held.events.is_empty() {
                // Who holds nothing costs nothing.
                self.began = self.began.max(event.position);
            }
        }
        if held.events.is_empty() {
            if let Some(used_at_ms) = held.used_at_ms {
                self.by_use.remove(&(used_at_ms, tenant.clone()));
            }
            self.tenants.remove(tenant);
        } else {
            self.by_load
                .insert((held.load(bytes_of_event), tenant.clone()));
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Event, Filter, Position, Priority, Topic};

    const IDLE_MS: i64 = 300_000;

    fn event(tenant: &str, seq: i64, at_ms: i64) -> Arc<Event> {
        let json = bytes::Bytes::from(vec![b' '; 100]);
        Arc::new(Event::new(
            Position { seq, at_ms },
            Tenant::parse(tenant).unwrap(),
            Topic::parse("a.b").unwrap(),
            None,
            Priority::Normal,
            "".into(),
            json,
        ))
    }

    fn held(window: &Window, tenant: &str) -> usize {
        let tenant = Tenant::parse(tenant).unwrap();
        window
            .tenants
            .get(&tenant)
            .map_or(0, |held| held.events.len())
    }

    /// Three tenants with 300 events each at 0, and then a flood of `loud`'s, late.
    fn flooded(late_ms: i64, flood: i64, is_read: &dyn Fn(&Tenant) -> bool) -> Window {
        let at = |seq, at_ms| Position { seq, at_ms };
        let mut window = Window::new(at(0, 0), 2_000, usize::MAX);
        let mut seq = 0;
        for tenant in ["read", "unread", "loud"] {
            for _ in 0..300 {
                seq += 1;
                window.extend(&[event(tenant, seq, 0)], at(seq, 0), is_read);
            }
        }
        for _ in 0..flood {
            seq += 1;
            window.extend(&[event("loud", seq, late_ms)], at(seq, late_ms), is_read);
        }
        window
    }

    #[test]
    fn who_is_not_used_gives_way_first_and_keeps_its_newest() {
        let is_read = |tenant: &Tenant| tenant.as_str() == "read";
        let mut window = flooded(IDLE_MS, 1_150, &is_read);
        assert!(held(&window, "unread") < 300, "first");
        assert_eq!(held(&window, "read"), 300);
        assert_eq!(held(&window, "loud"), 1_450, "it goes on growing");
        let evicted = window.take_evicted();
        assert_eq!(
            (evicted.largest, window.take_evicted()),
            (0, Evicted::default())
        );
        assert!(evicted.idle > 0);
        let mut window = flooded(IDLE_MS, 9_000, &is_read);
        assert_eq!(
            held(&window, "unread"),
            WINDOW_IDLE_EVENTS,
            "never all of it"
        );
        assert_eq!(held(&window, "read"), 300);
        assert!(held(&window, "loud") <= 1_600 && window.size().0 <= 2_000);
        assert!(window.take_evicted().largest > 7_000);
        // What it keeps is what is newest, and what lies before it is history's.
        let unread = Tenant::parse("unread").unwrap();
        let page = |seq| {
            let after = Position { seq, at_ms: 0 };
            window.page(&unread, &Filter::everything(), after, None, 500)
        };
        assert!(page(499).is_none());
        assert_eq!(page(500).unwrap().events.len(), WINDOW_IDLE_EVENTS);
    }

    #[test]
    fn who_was_written_to_a_moment_ago_gives_no_way_to_who_holds_more() {
        let window = flooded(IDLE_MS - 1, 9_000, &|_| false);
        assert_eq!((held(&window, "read"), held(&window, "unread")), (300, 300));
    }

    #[test]
    fn who_goes_is_forgotten_everywhere() {
        let mut window = flooded(IDLE_MS, 0, &|_| false);
        assert_eq!(window.by_use.len(), 3);
        window.forget(&Tenant::parse("read").unwrap(), 900);
        assert_eq!((window.by_use.len(), window.by_load.len()), (2, 2));
        let at = |seq| Position { seq, at_ms: 0 };
        let mut small = Window::new(at(0), 101, usize::MAX);
        for seq in 1..=5_000 {
            let tenant = format!("t{}", seq / 200);
            small.extend(&[event(&tenant, seq, 0)], at(seq), &|_| false);
        }
        assert!(small.by_use.len() <= small.tenants.len());
    }
}
