//! Follows the end of the log for this server: the only place that turns new rows into deliverable events.
//!
//! Own commits come from the lanes through the inbox, without a way back through the database: one whose place follows
//! the last event that was handed on leaves no place between the two for anybody else. Everything else is found by a
//! look at the log, up to the watermark.
//!
//! # Invariants
//! - Nothing above the watermark is ever handed on, and nothing at or below it is left out: pages ascend, without a gap.
//! - It carries no event by notification: a wake-up, a gap before an own commit or the safety poll only make it look.
//! - A database that is away or silent costs time, never an event: it goes on after the last page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::breaker::Breaker;
use super::error::Unavailable;
use super::identity::Identity;
use super::inbox::{Commit, Inbox};
use super::listener::Listener;
use super::look::{Look, Looker};
use super::own::Own;
use super::row;
use super::settle::Tickets;
use super::wakeup::{NotifyMode, Sleeper, WakeUp};
use super::watermark::Watermark;
use crate::backoff::Backoff;
use crate::event::{Event, Position, Seq};
use crate::pg::Connector;

/// Events before the present end that are read at the start, so that readers who were here a moment ago find theirs in
/// the window.
const PRELOAD_EVENTS: Seq = 20_000;
/// After a look that found something comes a rest as long as the look, so that looking never takes more than half of
/// the database's time, and many commits are read at once.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(10);
/// How long a place that is missing before an own commit may be another own write's that is under way.
const GAP_PATIENCE: Duration = Duration::from_millis(5);
/// While an open transaction holds back events that have been committed: how often to look whether it has ended. One
/// that is rolled back tells nobody.
const HELD_POLL_MIN: Duration = Duration::from_millis(2);
const HELD_POLL_MAX: Duration = Duration::from_millis(50);
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// New events, one after the other.
#[derive(Debug)]
pub struct TailPage {
    /// New events, ascending.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has now been handed on.
    pub watermark: Watermark,
    /// The log was cut (a restored backup, a failover): what was handed on before may no longer be in it.
    pub is_reset: bool,
    /// The database said that there was more than a page.
    is_full: bool,
}

/// What others may know of the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailStatus {
    /// The last look's watermark.
    pub watermark: Watermark,
    /// About wake-ups.
    pub wake_up: WakeUp,
    /// Whether the last look succeeded.
    pub is_up: bool,
    /// Since when an open transaction has held back events that are committed.
    pub held_since: Option<Instant>,
}

/// Follows the log; see the module.
pub struct Tail {
    connector: Connector,
    identity: Identity,
    inbox: Arc<Inbox>,
    status: watch::Sender<TailStatus>,
    after: Position,
    /// The life of the log that `after` belongs to.
    epoch: u16,
    present: Seq,
    looker: Option<Looker>,
    must_reset: bool,
    sleeper: Sleeper,
    breaker: Option<Breaker>,
    own: Own,
    /// Since when an open transaction has held back committed events.
    held_since: Option<Instant>,
    /// The newest committed event that the last look saw, held back or not.
    visible: Seq,
}

impl Tail {
    /// Connects, and finds where to begin.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn open(
        connector: Connector,
        identity: Identity,
        listener: Listener,
        inbox: Arc<Inbox>,
        mode: NotifyMode,
    ) -> Result<(Self, watch::Receiver<TailStatus>), Unavailable> {
        let looker = Looker::connect(&connector).await?;
        let known = identity.known();
        let (begin, present) = looker.begin_at(known.retained, PRELOAD_EVENTS).await?;
        let (status, receiver) = watch::channel(TailStatus {
            watermark: Watermark::at(begin),
            wake_up: WakeUp::Polling,
            is_up: true,
            held_since: None,
        });
        let tail = Self {
            connector,
            epoch: known.identity.epoch,
            identity,
            inbox,
            status,
            after: begin,
            present,
            looker: Some(looker),
            must_reset: false,
            sleeper: Sleeper::new(listener, mode),
            breaker: None,
            own: Own::default(),
            held_since: None,
            visible: 0,
        };
        Ok((tail, receiver))
    }

    /// Tells writers when the database is away, and when it is back: the tail asks it all the time.
    #[must_use]
    pub fn guarded_by(self, breaker: Breaker) -> Self {
        Self {
            breaker: Some(breaker),
            ..self
        }
    }

    /// Where the tail begins: what it hands on lies after this.
    #[must_use]
    pub const fn begins_at(&self) -> Position {
        self.after
    }

    /// The end of the log when the tail was opened: before it has handed on all up to there, `latest` is the past.
    #[must_use]
    pub const fn present(&self) -> Seq {
        self.present
    }

    /// Hands page after page to `sink`, for ever.
    pub async fn run(mut self, mut sink: impl FnMut(TailPage)) {
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        let mut rest_until = Instant::now();
        let mut look_at = rest_until;
        let mut owes_look = true;
        let mut tickets = Tickets::default();
        loop {
            let (arrived, is_writing, ended) = self.inbox.take();
            let must_look = !self.accept(arrived.commits) | arrived.must_look;
            if let Some(page) = self.own_page() {
                self.hand_on(page, &mut sink);
            }
            owes_look |= must_look;
            tickets.take(ended);
            if !owes_look && self.own.gap_since().is_none() && self.held_since.is_none() {
                self.inbox.settle(tickets.settle_all());
            }
            if must_look {
                look_at = look_at.min(rest_until);
                self.sleeper.woken().await;
            }
            if let Some(since) = self.own.gap_since() {
                let patience = if is_writing {
                    GAP_PATIENCE
                } else {
                    Duration::ZERO
                };
                look_at = look_at.min(later(since, patience).max(rest_until));
            }
            let now = Instant::now();
            if now < look_at {
                let arrived = self.inbox.arrived();
                let _ = tokio::time::timeout_at(look_at.into(), arrived).await;
                continue;
            }
            match self.look().await {
                Ok(page) => {
                    backoff.reset();
                    let (is_full, found) = (page.is_full, !page.events.is_empty());
                    self.hand_on(page, &mut sink);
                    if is_full {
                        continue;
                    }
                    owes_look = false;
                    self.inbox
                        .settle(tickets.looked(self.visible, self.after.seq));
                    let rest = now.elapsed().clamp(REST_MIN, REST_MAX);
                    let patience = self.patience(found).await;
                    let looked_at = Instant::now();
                    rest_until = if found {
                        later(looked_at, rest)
                    } else {
                        looked_at
                    };
                    look_at = later(looked_at, patience);
                }
                Err(error) => {
                    self.looker = None;
                    let last = self.status.borrow().watermark;
                    self.report(last, false);
                    tracing::warn!(%error, "the tail cannot read: trying again");
                    rest_until = later(Instant::now(), backoff.next_delay());
                    look_at = rest_until;
                }
            }
        }
    }

    fn hand_on(&mut self, page: TailPage, sink: &mut impl FnMut(TailPage)) {
        self.after = page.watermark.position;
        self.report(page.watermark, true);
        sink(page);
    }

    fn report(&self, watermark: Watermark, is_up: bool) {
        let status = TailStatus {
            watermark,
            wake_up: self.sleeper.state(),
            is_up,
            held_since: self.held_since,
        };
        if let Some(breaker) = &self.breaker {
            if is_up {
                breaker.heard();
            } else {
                breaker.missed();
            }
        }
        self.status
            .send_if_modified(|last| std::mem::replace(last, status) != status);
    }

    /// Puts own commits with those that wait for their turn. `false` if there is one that only a look can place.
    fn accept(&mut self, commits: Vec<Commit>) -> bool {
        self.must_reset |= self.identity.known().identity.epoch != self.epoch;
        let mut are_all_usable = true;
        for commit in commits {
            if self.must_reset || commit.epoch != self.epoch {
                // Written to another life of the log than the one this tail reads: it must see for itself.
                self.looker = None;
                are_all_usable = false;
            } else if self.held_since.is_none() {
                are_all_usable &= self.own.put(commit, self.after).unwrap_or(false);
            } // else: the look that finds the way free finds these as well.
        }
        are_all_usable
    }

    /// Own commits that follow the last event without a gap.
    fn own_page(&mut self) -> Option<TailPage> {
        let known = self.identity.known();
        let events = match self.own.take_after(self.after, &known.identity) {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "an own commit cannot be read: reading it from the log");
                self.own.clear();
                self.inbox.ask_for_look();
                return None;
            }
        };
        let position = events.last()?.position;
        let last = self.status.borrow().watermark;
        Some(TailPage {
            events,
            watermark: Watermark {
                position,
                safe: last.safe.max(position.seq),
                newest: last.newest.max(position.seq),
                holder: None,
            },
            is_reset: false,
            is_full: false,
        })
    }

    async fn look(&mut self) -> Result<TailPage, Unavailable> {
        let looker = match self.looker.take() {
            Some(looker) => looker,
            None => self.reconnect().await?,
        };
        let looker = self.looker.insert(looker);
        if self.must_reset {
            return self.reset().await;
        }
        let known = self.identity.known();
        let Look {
            safe,
            newest,
            holder,
            rows,
            is_full,
        } = looker.look(self.after, known.disorder_s).await?;
        if newest < self.after.seq {
            // Places are never given back: this is another history.
            self.must_reset = true;
            return self.reset().await;
        }
        let mut events = Vec::with_capacity(rows.len());
        let mut position = self.after;
        for row in &rows {
            let event = row::event(row, &known.identity).map_err(Unavailable::Lost)?;
            if event.position.seq > safe {
                break;
            }
            debug_assert!(event.position.seq > position.seq, "pages ascend");
            position = event.position;
            events.push(Arc::new(event));
        }
        let are_held = events.len() < rows.len();
        let newest_seen = rows.last().map(|row| row.try_get(0)).transpose();
        self.visible = newest_seen
            .map_err(Unavailable::Lost)?
            .unwrap_or(position.seq);
        self.held_since = are_held.then(|| self.held_since.unwrap_or_else(Instant::now));
        if are_held {
            self.own.clear();
        } else {
            self.own.forget_through(position);
        }
        let is_full = is_full && !are_held;
        Ok(TailPage {
            events,
            watermark: Watermark {
                position,
                safe: if is_full { position.seq } else { safe },
                newest,
                holder,
            },
            is_reset: false,
            is_full,
        })
    }

    async fn reconnect(&mut self) -> Result<Looker, Unavailable> {
        let looker = Looker::connect(&self.connector).await?;
        self.identity.reload(&looker.client).await?;
        self.must_reset |= self.identity.known().identity.epoch != self.epoch;
        Ok(looker)
    }

    /// Begins anew at the end of the log as it is now.
    async fn reset(&mut self) -> Result<TailPage, Unavailable> {
        let Some(looker) = &self.looker else {
            return Err(Unavailable::Silent);
        };
        self.identity.reload(&looker.client).await?;
        let known = self.identity.known();
        // Without a preload: while it ran, the latest would be the past.
        let (begin, _) = looker.begin_at(known.retained, 0).await?;
        tracing::warn!(
            event.seq = begin.seq,
            "the log has begun a new life: cursors beyond its newest event are unknown"
        );
        self.must_reset = false;
        self.epoch = known.identity.epoch;
        self.own.clear();
        self.held_since = None;
        Ok(TailPage {
            events: Vec::new(),
            watermark: Watermark::at(begin),
            is_reset: true,
            is_full: true,
        })
    }

    /// How long to wait for a wake-up after a look.
    async fn patience(&mut self, found: bool) -> Duration {
        let patience = self.sleeper.patience(found).await;
        match self.held_since {
            None => patience,
            Some(since) => patience.min((since.elapsed() / 4).clamp(HELD_POLL_MIN, HELD_POLL_MAX)),
        }
    }
}

fn later(time: Instant, by: Duration) -> Instant {
    time.checked_add(by).unwrap_or(time)
}
