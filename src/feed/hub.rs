//! Where the tail hands events over and readers take them.
//!
//! # Invariants
//! - Putting events into the window and marking those who want them happen under one lock, and so do taking one's mark
//!   and reading the window: nobody can miss an event between the two.
//! - No lock is held across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use super::gate::Gate;
use super::matching::{MatchIndex, Reader};
use super::turn::Turn;
use super::window::Window;
use crate::event::{Event, Filter, Label, Position, Seq, Tenant};
use crate::log::inbox::Inbox;
use crate::log::tail::{TailPage, TailStatus};
use crate::log::{Breaker, History, Identity, Page, ReadError, Unavailable};
use crate::telemetry::{DeliveryMetrics, Metrics, Origin};

/// Nothing unseen.
const NONE: Seq = Seq::MAX;
/// Events that are put in under one lock.
const SLICE: usize = 256;

/// A reader's mark: the first event since its last read that it wants.
#[derive(Debug)]
pub struct Mark {
    unseen: AtomicI64,
    /// Signalled when the mark is set. Several subscriptions of one connection may share it.
    pub wake: Arc<Notify>,
}

impl Mark {
    fn set(&self, seq: Seq) -> bool {
        self.unseen
            .compare_exchange(NONE, seq, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(super) fn is_set(&self) -> bool {
        self.unseen.load(Ordering::Acquire) != NONE
    }

    fn take(&self) -> Option<Seq> {
        Some(self.unseen.swap(NONE, Ordering::AcqRel)).filter(|seq| *seq != NONE)
    }
}

#[derive(Debug)]
struct State {
    window: Window,
    index: MatchIndex,
    marks: HashMap<Reader, Arc<Mark>>,
}

/// Limits of the window.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Events at most.
    pub events: usize,
    /// Bytes at most.
    pub bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    state: RwLock<State>,
    head: watch::Sender<Position>,
    /// The watermark up to which all events have been put in; at or above the head, which is an event's place.
    through: watch::Sender<Seq>,
    tail: watch::Receiver<TailStatus>,
    identity: Identity,
    gate: Gate,
    limits: WindowLimits,
    breaker: Option<Breaker>,
    next_reader: AtomicU64,
    /// Counts the times the log was cut.
    cuts: AtomicU64,
    /// Makes the tail look now.
    inbox: Arc<Inbox>,
    /// What lies at or below was there before this server.
    present: Seq,
    metrics: Metrics,
}

impl Hub {
    /// An empty hub whose window begins where the tail does; what lies at or below `present` is not new.
    #[must_use]
    pub fn new(
        (began, present): (Position, Seq),
        limits: WindowLimits,
        tail: watch::Receiver<TailStatus>,
        identity: Identity,
        history: History,
        inbox: Arc<Inbox>,
        metrics: Metrics,
    ) -> Self {
        let window = Window::new(began, limits.events, limits.bytes);
        Self {
            state: RwLock::new(State {
                window,
                index: MatchIndex::default(),
                marks: HashMap::new(),
            }),
            head: watch::channel(began).0,
            through: watch::channel(began.seq).0,
            tail,
            identity,
            gate: Gate::new(history),
            limits,
            breaker: None,
            next_reader: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            inbox,
            present,
            metrics,
        }
    }

    /// While this breaker is open and the tail hears nothing of the database, history is not asked.
    #[must_use]
    pub fn guarded_by(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// The way to history.
    ///
    /// # Errors
    /// At once, while nothing is heard of the database.
    pub(super) fn history(&self) -> Result<&Gate, ReadError> {
        // A disk that takes nothing is no reason not to read.
        let is_down = !self.tail.borrow().is_up;
        let breaker = self.breaker.as_ref().filter(|_| is_down);
        let tripped = breaker.and_then(|breaker| breaker.open_for(Instant::now()));
        match tripped {
            Some(tripped) => Err(Unavailable::from(tripped).into()),
            None => Ok(&self.gate),
        }
    }

    /// Takes what the tail found and wakes those who want it.
    pub fn publish(&self, page: &TailPage) {
        let through = page.watermark.position;
        if page.is_reset {
            self.reset(through);
            return;
        }
        let mut slices = page.events.chunks(SLICE).peekable();
        while let Some(slice) = slices.next() {
            let last = slice.last().map_or(through, |event| event.position);
            self.put(
                slice,
                if slices.peek().is_some() {
                    last
                } else {
                    through
                },
            );
        }
        if page.events.is_empty() && self.head().seq < through.seq {
            self.put(&[], through);
        }
        self.head
            .send_if_modified(|head| std::mem::replace(head, through) != through);
        let safe = page.watermark.safe.max(through.seq);
        self.through
            .send_if_modified(|last| std::mem::replace(last, safe) != safe);
    }

    fn put(&self, events: &[Arc<Event>], through: Position) {
        let mut woken: Vec<Arc<Notify>> = Vec::new();
        {
            let mut state = self.write();
            let State {
                window,
                index,
                marks,
            } = &mut *state;
            window.extend(events, through, &|tenant| index.is_read(tenant));
            let evicted = window.take_evicted();
            self.metrics.delivery.evicted(evicted.idle, evicted.largest);
            for event in events {
                let subject = event.subject.as_ref().map(Label::as_str);
                index.each(
                    &event.tenant,
                    event.topic.as_str(),
                    subject,
                    &mut |reader| {
                        if let Some(mark) = marks.get(&reader)
                            && mark.set(event.position.seq)
                        {
                            woken.push(Arc::clone(&mark.wake));
                        }
                    },
                );
            }
        }
        for wake in woken {
            wake.notify_one();
        }
        self.measure(events);
    }

    /// How long it took until events could be read here.
    fn measure(&self, events: &[Arc<Event>]) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        for event in events.iter().filter(|e| e.position.seq > self.present) {
            let (origin, after) = match event.receipt {
                Some(receipt) => {
                    let after = now.saturating_duration_since(receipt.committed);
                    (Origin::Commit, after)
                }
                None => (Origin::Look, event.since_recorded(clock)),
            };
            self.metrics.delivery.visible(origin, after);
            if event.trace.is_some() {
                self.metrics.traces.visible(event);
            }
        }
    }

    fn reset(&self, began: Position) {
        let mut state = self.write();
        state.window = Window::new(began, self.limits.events, self.limits.bytes);
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.gate.forget();
        for mark in state.marks.values() {
            mark.unseen.store(0, Ordering::Release);
            mark.wake.notify_one();
        }
        drop(state);
        self.head.send_replace(began);
        self.through.send_replace(began.seq);
    }

    /// Forgets the tenant's events up to `through`: some of them have been erased. Who is behind reads them anew, from
    /// history.
    pub fn forget(&self, tenant: &Tenant, through: Seq) {
        self.write().window.forget(tenant, through);
        self.gate.forget();
    }

    /// Enters a reader into the index. Its first read sees everything after its place.
    pub(super) fn enter(
        &self,
        tenant: &Tenant,
        filter: &Arc<Filter>,
        wake: Arc<Notify>,
    ) -> (Reader, Arc<Mark>) {
        let reader = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let mark = Arc::new(Mark {
            unseen: AtomicI64::new(0),
            wake,
        });
        let mut state = self.write();
        state.index.add(reader, tenant, filter);
        state.marks.insert(reader, Arc::clone(&mark));
        (reader, mark)
    }

    /// Takes a reader out.
    pub(super) fn leave(&self, reader: Reader, tenant: &Tenant, filter: &Filter) {
        let mut state = self.write();
        state.index.remove(reader, tenant, filter);
        state.marks.remove(&reader);
    }

    /// Reads the window for a reader. `is_caught_up`: it had read all up to its last read, so its mark, if it has one, says
    /// what is new.
    ///
    /// # Errors
    /// With the window's end if it no longer holds what follows `after`. What lies beyond this end is marked again; what
    /// the mark named lies before it.
    pub(super) fn read_window(
        &self,
        mark: Option<&Mark>,
        is_caught_up: bool,
        tenant: &Tenant,
        filter: &Filter,
        after: Position,
        limit: usize,
    ) -> Result<Page, Position> {
        let state = self.read();
        let is_caught_up = is_caught_up && mark.is_some();
        let unseen = mark.and_then(Mark::take);
        let head = state.window.head();
        if is_caught_up && unseen.is_none() {
            let through = after.max(head);
            return Ok(Page {
                events: Vec::new(),
                through,
                has_more: false,
            });
        }
        let unseen = unseen.filter(|_| is_caught_up);
        let page = state.window.page(tenant, filter, after, unseen, limit);
        page.ok_or(head)
    }

    /// Everything up to here can be read.
    #[must_use]
    pub fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// Waits until everything up to `seq` can be read; whether that was so within `patience`.
    pub async fn wait_for(&self, seq: Seq, patience: Duration) -> bool {
        let mut through = self.through.subscribe();
        self.inbox.ask_for_look();
        tokio::time::timeout(patience, through.wait_for(|through| *through >= seq))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Waits until what this server has stored by now can be read, as far as the watermark lets it.
    pub(super) async fn settled(&self, patience: Duration) {
        self.inbox.settled(patience).await;
    }

    /// Waits until the log is known to have reached `seq`, watermark aside; whether that was so within `patience`.
    pub(super) async fn wait_for_newest(&self, seq: Seq, patience: Duration) -> bool {
        let mut tail = self.tail.clone();
        self.inbox.ask_for_look();
        let reached = tail.wait_for(|status| status.watermark.newest >= seq);
        tokio::time::timeout(patience, reached)
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// The tail's last word.
    #[must_use]
    pub fn tail(&self) -> TailStatus {
        *self.tail.borrow()
    }

    /// The same, to wait for.
    #[must_use]
    pub fn tail_states(&self) -> watch::Receiver<TailStatus> {
        self.tail.clone()
    }

    /// What is known of the log.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits for a turn of those who are not live yet.
    pub async fn turn(&self, tenant: &Tenant) -> Option<Turn> {
        self.gate.turn(tenant).await
    }

    pub(super) const fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Readers in the index, events and bytes in the window.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        let state = self.read();
        let (events, bytes) = state.window.size();
        (state.index.readers(), events, bytes)
    }

    /// What the window may hold.
    #[must_use]
    pub const fn limits(&self) -> WindowLimits {
        self.limits
    }

    /// What is counted of readers.
    pub(super) fn metrics(&self) -> &DeliveryMetrics {
        &self.metrics.delivery
    }

    /// Readers that are behind and wait for their turn.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.gate.waiting()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
