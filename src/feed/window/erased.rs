//! Forgetting what was erased.
//!
//! # Invariants
//! - What was read before an erasure is neither kept nor taken in after it; as if it had given way, it is read from history.

use super::Window;
use crate::event::{Event, Seq, Tenant};

impl Window {
    pub(super) fn is_erased(&self, event: &Event) -> bool {
        let through = self.erased.get(&event.tenant);
        through.is_some_and(|through| event.position.seq <= *through)
    }

    /// Drops the tenant's events up to `through`, those that are on their way included: some of them have been erased.
    pub fn forget(&mut self, tenant: &Tenant, through: Seq) {
        if through > self.head.seq {
            let erased = self.erased.entry(tenant.clone()).or_default();
            *erased = through.max(*erased);
        }
        let bytes_of_event = self.bytes_of_event();
        let Some(held) = self.tenants.get_mut(tenant) else {
            return;
        };
        let load = held.load(bytes_of_event);
        self.by_load.remove(&(load, tenant.clone()));
        let kept = held
            .events
            .partition_point(|event| event.position.seq <= through);
        for event in held.events.drain(..kept) {
            let weight = event.weight();
            held.after = event.position.seq;
            held.bytes = held.bytes.saturating_sub(weight);
            self.bytes = self.bytes.saturating_sub(weight);
            self.events = self.events.saturating_sub(1);
            self.began = if held.bytes == 0 {
                self.began.max(event.position)
            } else {
                self.began
            };
        }
        if held.events.is_empty() {
            if let Some(used_at_ms) = held.used_at_ms {
                self.by_use.remove(&(used_at_ms, tenant.clone()));
            }
            self.tenants.remove(tenant);
        } else {
            let load = held.load(bytes_of_event);
            self.by_load.insert((load, tenant.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Filter, Position, Priority, Topic};
    use crate::log::Page;

    fn event(tenant: &str, seq: Seq) -> Arc<Event> {
        Arc::new(Event::new(
            Position { seq, at_ms: seq },
            Tenant::parse(tenant).unwrap(),
            Topic::parse("a").unwrap(),
            None,
            Priority::Normal,
            "".into(),
            bytes::Bytes::from_static(b"{}"),
        ))
    }

    fn seqs(page: &Page) -> Vec<Seq> {
        page.events.iter().map(|e| e.position.seq).collect()
    }

    #[test]
    fn what_is_erased_is_neither_kept_nor_taken_in() {
        let tenant = Tenant::parse("a").unwrap();
        let other = Tenant::parse("b").unwrap();
        let at = |seq| Position { seq, at_ms: seq };
        let all = Filter::everything();
        for through in [13, 15, 18] {
            let mut window = Window::new(at(10), 100, usize::MAX);
            let first: Vec<_> = (11..=15).map(|seq| event("a", seq)).collect();
            window.extend(&first, at(15), &|_| false);
            window.forget(&tenant, through);
            window.extend(
                &[event("a", 16), event("b", 17), event("a", 18)],
                at(18),
                &|_| false,
            );
            window.extend(&[event("a", 19)], at(19), &|_| false);
            assert!(window.erased.is_empty());
            assert!(window.page(&tenant, &all, at(12), None, 9).is_none());
            let page = window.page(&tenant, &all, at(through), None, 9).unwrap();
            let kept = (through + 1..=19)
                .filter(|seq| *seq != 17)
                .collect::<Vec<_>>();
            assert_eq!(seqs(&page), kept);
            let page = window.page(&other, &all, at(16), None, 9).unwrap();
            assert_eq!(seqs(&page), [17]);
            window.forget(&tenant, 19);
            assert_eq!(window.size().0, 1);
            assert!(window.page(&tenant, &all, at(18), None, 9).is_none());
            assert_eq!(window.by_load.len(), 1);
        }
    }
}
