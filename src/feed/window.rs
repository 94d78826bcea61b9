//! The newest events in memory, tenant by tenant.
//!
//! # Invariants
//! - May be empty at any time; an answer from it equals the log's.
//! - A look ends after so many events that do not match, as history's does: meanwhile nothing can be put in.
//! - Bounded by events and bytes over all tenants. Who gives way first: `window/evict.rs`.

mod erased;
mod evict;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

pub use self::evict::Evicted;

use crate::event::limits::{PAGE_BYTES_MAX, PAGE_SCAN_MAX, WINDOW_IDLE_EVENTS};
use crate::event::{Event, Filter, Position, Seq, Tenant};
use crate::log::Page;

/// See the module.
#[derive(Debug)]
pub struct Window {
    tenants: HashMap<Tenant, Held>,
    /// The tenants by what they hold ([`Held::load`]), so that the one that holds most is found however many there are.
    by_load: BTreeSet<(usize, Tenant)>,
    /// Tenants with more events than the idle keep, by when they were last known to be in use; each at most once.
    by_use: BTreeSet<(i64, Tenant)>,
    evicted: Evicted,
    /// A tenant without an entry has had no event since.
    began: Position,
    /// Everything up to here has been put in.
    head: Position,
    events: usize,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// Up to where events have been erased that were not put in yet: as they come, they may be those of before.
    erased: HashMap<Tenant, Seq>,
}

/// One tenant's events.
#[derive(Debug)]
struct Held {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The last event that gave way, or where the window began.
    after: Seq,
    /// The key in `by_use`, if it stands there.
    used_at_ms: Option<i64>,
}

impl Held {
    /// Bytes, or as many as so many events take on average in a full window: many small ones weigh as well.
    fn load(&self, bytes_of_event: usize) -> usize {
        self.bytes
            .max(self.events.len().saturating_mul(bytes_of_event))
    }
}

impl Window {
    /// An empty window that begins at `began`.
    #[must_use]
    pub fn new(began: Position, events_max: usize, bytes_max: usize) -> Self {
        Self {
            tenants: HashMap::new(),
            by_load: BTreeSet::new(),
            by_use: BTreeSet::new(),
            evicted: Evicted::default(),
            began,
            head: began,
            events: 0,
            bytes: 0,
            events_max,
            bytes_max,
            erased: HashMap::new(),
        }
    }

    /// Puts in the next events; they ascend and lie above all that were put in before. `through`: how far this says all.
    ///
    /// `is_read`: whether anybody who is connected reads a tenant's events.
    pub fn extend(
        &mut self,
        events: &[Arc<Event>],
        through: Position,
        is_read: &dyn Fn(&Tenant) -> bool,
    ) {
        let bytes_of_event = self.bytes_of_event();
        for event in events {
            debug_assert!(event.position.seq > self.head.seq, "events ascend");
            if self.is_erased(event) {
                // As if it had given way: the tenant has nothing here that lies before it.
                self.began = self.began.max(event.position);
                self.head = event.position;
                continue;
            }
            let began = self.began.seq;
            let held = self
                .tenants
                .entry(event.tenant.clone())
                .or_insert_with(|| Held {
                    events: VecDeque::new(),
                    bytes: 0,
                    after: began,
                    used_at_ms: None,
                });
            let weight = event.weight();
            let load = held.load(bytes_of_event);
            self.by_load.remove(&(load, event.tenant.clone()));
            held.bytes = held.bytes.saturating_add(weight);
            held.events.push_back(Arc::clone(event));
            let load = held.load(bytes_of_event);
            self.by_load.insert((load, event.tenant.clone()));
            if held.used_at_ms.is_none() && held.events.len() > WINDOW_IDLE_EVENTS {
                held.used_at_ms = Some(event.position.at_ms);
                self.by_use
                    .insert((event.position.at_ms, event.tenant.clone()));
            }
            self.bytes = self.bytes.saturating_add(weight);
            self.events = self.events.saturating_add(1);
            self.head = event.position;
        }
        self.head = through;
        self.erased.retain(|_, erased| *erased > through.seq);
        while self.events > self.events_max || self.bytes > self.bytes_max {
            self.evict(is_read);
        }
    }

    fn bytes_of_event(&self) -> usize {
        self.bytes_max.checked_div(self.events_max).unwrap_or(0)
    }

    /// The tenant's events after `after` that match; `None` if the window no longer holds what follows it.
    ///
    /// `unseen`: the first event after `after` that can match, if the caller knows; what lies before it is not looked at.
    #[must_use]
    pub fn page(
        &self,
        tenant: &Tenant,
        filter: &Filter,
        after: Position,
        unseen: Option<Seq>,
        limit: usize,
    ) -> Option<Page> {
        if after.seq >= self.head.seq {
            return Some(Page {
                events: Vec::new(),
                through: after.max(self.head),
                has_more: false,
            });
        }
        // Not behind is also who has not been given anything for long, since nothing matched.
        let from = unseen.map_or(after.seq, |seq| after.seq.max(seq.saturating_sub(1)));
        let Some(held) = self.tenants.get(tenant) else {
            let through = self.head;
            return (from >= self.began.seq).then_some(Page {
                events: Vec::new(),
                through,
                has_more: false,
            });
        };
        if from < held.after {
            return None;
        }
        let first = held
            .events
            .partition_point(|event| event.position.seq <= from);
        let mut events = Vec::new();
        let mut bytes = 0_usize;
        for (looks, event) in held.events.range(first..).enumerate() {
            if looks >= PAGE_SCAN_MAX {
                let last = first.saturating_add(looks).saturating_sub(1);
                let through = held.events.get(last).map_or(after, |last| last.position);
                return Some(Page {
                    events,
                    through,
                    has_more: true,
                });
            }
            if !filter.matches(
                event.topic.as_str(),
                event.subject.as_ref().map(crate::event::Label::as_str),
            ) {
                continue;
            }
            bytes = bytes.saturating_add(event.json.len());
            if events.len() >= limit || (bytes > PAGE_BYTES_MAX && !events.is_empty()) {
                let through = events
                    .last()
                    .map_or(after, |last: &Arc<Event>| last.position);
                return Some(Page {
                    events,
                    through,
                    has_more: true,
                });
            }
            events.push(Arc::clone(event));
        }
        Some(Page {
            events,
            through: self.head,
            has_more: false,
        })
    }

    /// Everything up to here has been put in.
    #[must_use]
    pub const fn head(&self) -> Position {
        self.head
    }

    /// Events and bytes held.
    #[must_use]
    pub const fn size(&self) -> (usize, usize) {
        (self.events, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Priority, Topic, TopicPattern};

    fn event(tenant: &str, seq: Seq) -> Arc<Event> {
        let position = Position { seq, at_ms: seq };
        let topic = Topic::parse(if seq % 2 == 0 { "even" } else { "odd" }).unwrap();
        let json = bytes::Bytes::from(vec![b' '; 100]);
        Arc::new(Event::new(
            position,
            Tenant::parse(tenant).unwrap(),
            topic,
            None,
            Priority::Normal,
            "".into(),
            json,
        ))
    }

    fn seqs(page: &Page) -> Vec<Seq> {
        page.events.iter().map(|e| e.position.seq).collect()
    }

    #[test]
    fn answers_what_it_holds_and_says_so_when_it_does_not() {
        let tenant = Tenant::parse("a").unwrap();
        let at = |seq| Position { seq, at_ms: 0 };
        let mut window = Window::new(at(10), 100, 1_000_000);
        window.extend(
            &(11..=20).map(|seq| event("a", seq)).collect::<Vec<_>>(),
            at(22),
            &|_| false,
        );
        let all = Filter::everything();
        let page = window.page(&tenant, &all, at(10), None, 3).unwrap();
        assert_eq!(
            (seqs(&page), page.through.seq, page.has_more),
            (vec![11, 12, 13], 13, true)
        );
        let page = window.page(&tenant, &all, at(18), None, 100).unwrap();
        assert_eq!(
            (seqs(&page), page.through.seq, page.has_more),
            (vec![19, 20], 22, false)
        );
        assert!(window.page(&tenant, &all, at(9), None, 1).is_none());
        let other = Tenant::parse("b").unwrap();
        assert_eq!(
            window
                .page(&other, &all, at(12), None, 9)
                .unwrap()
                .through
                .seq,
            22
        );
        assert!(window.page(&other, &all, at(9), None, 9).is_none());
        for after in [at(10), at(5)] {
            assert_eq!(
                seqs(&window.page(&tenant, &all, after, Some(18), 9).unwrap()),
                vec![18, 19, 20]
            );
        }
        assert!(window.page(&tenant, &all, at(5), Some(9), 9).is_none());
    }

    #[test]
    fn a_look_at_what_does_not_match_ends_and_says_where() {
        let tenant = Tenant::parse("a").unwrap();
        let at = |seq| Position { seq, at_ms: seq };
        let mut window = Window::new(at(0), 100_000, usize::MAX);
        let events: Vec<_> = (1..=12_000).map(|seq| event("a", seq)).collect();
        window.extend(&events, at(12_000), &|_| false);
        let none = Filter::new([TopicPattern::parse("none").unwrap()], []).unwrap();
        let (mut after, mut ends) = (at(0), Vec::new());
        loop {
            let page = window.page(&tenant, &none, after, None, 9).unwrap();
            assert!(page.events.is_empty());
            after = page.through;
            ends.push(after.seq);
            if !page.has_more {
                break;
            }
        }
        assert_eq!(ends, [5_000, 10_000, 12_000]);
    }

    #[test]
    fn whoever_floods_gives_way_first() {
        let at = |seq| Position { seq, at_ms: 0 };
        let mut window = Window::new(at(0), 200, usize::MAX);
        window.extend(&[event("quiet", 1)], at(1), &|_| false);
        for seq in 2..=1_000 {
            window.extend(&[event("loud", seq)], at(seq), &|_| false);
        }
        let all = Filter::everything();
        assert!(window.size().0 <= 200);
        assert_eq!(
            seqs(
                &window
                    .page(&Tenant::parse("quiet").unwrap(), &all, at(0), None, 9)
                    .unwrap()
            ),
            vec![1]
        );
        assert!(
            window
                .page(&Tenant::parse("loud").unwrap(), &all, at(1), None, 9)
                .is_none()
        );
    }

    /// The flood takes up few bytes, and yet all places.
    #[test]
    fn many_small_events_push_out_no_large_ones() {
        let at = |seq| Position { seq, at_ms: 0 };
        let large = |seq| {
            let json = bytes::Bytes::from(vec![b' '; 200_000]);
            let topic = Topic::parse("large").unwrap();
            let tenant = Tenant::parse("quiet").unwrap();
            let priority = Priority::Normal;
            Arc::new(Event::new(
                at(seq),
                tenant,
                topic,
                None,
                priority,
                "".into(),
                json,
            ))
        };
        let mut window = Window::new(at(0), 200, 1_000_000);
        window.extend(&[large(1), large(2)], at(2), &|_| false);
        for seq in 3..=1_000 {
            window.extend(&[event("loud", seq)], at(seq), &|_| false);
        }
        let (all, quiet) = (Filter::everything(), Tenant::parse("quiet").unwrap());
        let page = window.page(&quiet, &all, at(0), None, 9);
        assert_eq!(seqs(&page.unwrap()), vec![1, 2]);
    }

    /// Each with one event: none is larger than the others, and none comes back.
    #[test]
    fn tenants_that_hold_nothing_are_forgotten_and_nobody_is_told_they_had_nothing() {
        let at = |seq| Position { seq, at_ms: seq };
        let mut window = Window::new(at(0), 100, usize::MAX);
        let began = std::time::Instant::now();
        for seq in 1..=50_000 {
            window.extend(&[event(&format!("t{seq}"), seq)], at(seq), &|_| false);
        }
        // Looking at every tenant for every event would take minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
        assert_eq!(window.size().0, 100);
        assert_eq!((window.tenants.len(), window.by_load.len()), (100, 100));
        let all = Filter::everything();
        let mut answered = 0;
        for seq in 1..=50_000 {
            let tenant = Tenant::parse(&format!("t{seq}")).unwrap();
            if let Some(page) = window.page(&tenant, &all, at(seq - 1), None, 9) {
                assert_eq!(seqs(&page), vec![seq], "what it answers is what there was");
                answered += 1;
            }
        }
        assert_eq!(answered, 100);
    }
}
