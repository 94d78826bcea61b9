//! The one loop that every reader runs: read after my cursor, hand on, wait for a wake-up, repeat.
//!
//! # Invariants
//! - A reader is in the index before the read after which it waits, and its mark is taken before each read: an event that
//!   arrives during a read is seen as a mark after it. Who is not in the index looks at everything after its place.
//! - Order is log order, nothing twice, no gap. Holds one page at most.
//! - Dropping the future of [`Follower::next`] loses nothing: the place moves only when a batch is handed out.

mod behind;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use super::error::FollowError;
use super::hub::{Hub, Mark};
use super::matching::Reader;
use super::pace::Pace;
use super::turn::Turn;
use crate::event::{Cursor, Event, Filter, Position, Seq, Tenant};
use crate::log::error::check_bounds;
use crate::log::{Page, ReadError};

pub use behind::{Behind, Past};

/// How long a cursor that this server has not seen yet may take to prove real: another server may have issued it.
pub(super) const AHEAD_PATIENCE: Duration = Duration::from_secs(2);

/// How long a reader that begins may wait for what this server has stored before.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Strictly after a cursor.
    After(Cursor),
    /// With the first event that retention has left.
    Earliest,
    /// With the next event.
    Latest,
    /// With the first event recorded then or later.
    Since(DateTime<Utc>),
}

/// What a live reader wants when it has fallen behind the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLag {
    /// Everything, from history.
    #[default]
    CatchUp,
    /// The present: a gap tells what was left out.
    Skip,
    /// The end: it comes back with its cursor when it can.
    Disconnect,
}

/// What a reader gets.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Ascending; may be empty.
    pub events: Vec<Arc<Event>>,
    /// Everything that matches up to here has been handed out.
    pub through: Position,
    /// Nothing that can be read now lies behind.
    pub is_caught_up: bool,
    /// It had been caught up before: the events are news.
    pub was_live: bool,
    /// What was left out before `through`, as the reader asked.
    pub skipped: Option<Skipped>,
}

/// What can be had without the database.
#[derive(Debug)]
pub enum AtHand {
    /// This, and it has been handed out.
    Batch(Batch),
    /// Nothing: the reader is behind the window.
    Behind(Behind),
}

/// Events that a reader was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// They lie after this place.
    pub from: Position,
    /// How many match, if that could be told soon.
    pub count: Option<u64>,
}

/// A reader of the log.
#[derive(Debug)]
pub struct Follower {
    hub: Arc<Hub>,
    tenant: Tenant,
    filter: Arc<Filter>,
    after: Position,
    wake: Arc<Notify>,
    /// Its place in the index. None before it first waits, if it began with a look.
    entry: Option<(Reader, Arc<Mark>)>,
    is_caught_up: bool,
    /// It has been caught up at some time: falling behind now is lag.
    was_live: bool,
    on_lag: OnLag,
    pace: Pace,
    cuts: u64,
    turn: Option<Turn>,
    /// It named no event, and has been given nothing yet: it begins wherever the log does now.
    takes_what_is_left: bool,
}

impl Follower {
    /// Enters a reader. `wake` is signalled when there may be something to read; several readers may share it.
    ///
    /// # Errors
    /// If retention has overtaken the start, or it lies ahead of the log.
    pub async fn start(
        hub: &Arc<Hub>,
        tenant: Tenant,
        filter: Arc<Filter>,
        start: Start,
        wake: Arc<Notify>,
    ) -> Result<Self, FollowError> {
        let mut follower = Self::new(hub, tenant, filter, start, wake);
        follower.enter();
        follower.after = Box::pin(place(hub, &follower.tenant, start)).await?;
        Ok(follower)
    }

    /// A reader that takes what there is, most likely without waiting: to enter it and to take it out would hold up those
    /// who write and those who wait. It enters when it first waits.
    ///
    /// # Errors
    /// As [`Follower::start`].
    pub async fn look(
        hub: &Arc<Hub>,
        tenant: Tenant,
        filter: Arc<Filter>,
        start: Start,
    ) -> Result<Self, FollowError> {
        let mut follower = Self::new(hub, tenant, filter, start, Arc::new(Notify::new()));
        follower.after = Box::pin(place(hub, &follower.tenant, start)).await?;
        Ok(follower)
    }

    fn new(
        hub: &Arc<Hub>,
        tenant: Tenant,
        filter: Arc<Filter>,
        start: Start,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            hub: Arc::clone(hub),
            tenant,
            filter,
            after: Position::START,
            wake,
            entry: None,
            is_caught_up: false,
            was_live: false,
            on_lag: OnLag::CatchUp,
            pace: Pace::default(),
            cuts: hub.cuts(),
            turn: None,
            takes_what_is_left: matches!(start, Start::Earliest | Start::Since(_)),
        }
    }

    fn enter(&mut self) {
        let wake = Arc::clone(&self.wake);
        self.entry = Some(self.hub.enter(&self.tenant, &self.filter, wake));
    }

    /// What to do when it falls behind the window.
    #[must_use]
    pub const fn on_lag(mut self, on_lag: OnLag) -> Self {
        self.on_lag = on_lag;
        self
    }

    /// How often it may read history.
    #[must_use]
    pub fn at_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// How often it may read history from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Whether a read would find something, as far as can be told without one.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let is_marked = |(_, mark): &(Reader, Arc<Mark>)| mark.is_set();
        !self.is_caught_up || self.entry.as_ref().is_none_or(is_marked)
    }

    /// Everything that matches up to here has been handed out.
    #[must_use]
    pub const fn after(&self) -> Position {
        self.after
    }

    /// Reads what there is, at most `limit` events, without waiting for more to arrive.
    ///
    /// # Errors
    /// If retention or a cut of the log has overtaken the reader, or the database cannot be asked.
    pub async fn read(&mut self, limit: usize) -> Result<Batch, FollowError> {
        match self.read_at_hand(limit).await? {
            AtHand::Batch(batch) => Ok(batch),
            AtHand::Behind(behind) => {
                let past = self.read_behind(behind, limit).await?;
                self.take_turn_for(&past).await;
                Ok(self.pass(past))
            }
        }
    }

    /// Reads what can be had without the database, at most `limit` events. Who is behind asks with [`Follower::read_behind`].
    ///
    /// # Errors
    /// If a cut of the log has overtaken the reader.
    pub async fn read_at_hand(&mut self, limit: usize) -> Result<AtHand, FollowError> {
        self.check_cuts()?;
        self.take_turn().await;
        let page = self.hub.read_window(
            self.entry.as_ref().map(|(_, mark)| &**mark),
            self.is_caught_up,
            &self.tenant,
            &self.filter,
            self.after,
            limit,
        );
        match page {
            Ok(page) => Ok(AtHand::Batch(self.hand_out(page, 0, self.is_caught_up))),
            Err(head) => {
                // The database may take its time: not at the cost of those who wait.
                self.turn = None;
                // What the mark said is lost: the next read looks at everything after the place.
                let has_fallen = std::mem::take(&mut self.is_caught_up) && self.was_live;
                Ok(AtHand::Behind(Behind { head, has_fallen }))
            }
        }
    }

    /// Moves the place: what is handed out is not read again.
    fn hand_out(&mut self, page: Page, marked_to: Seq, was_live: bool) -> Batch {
        debug_assert!(
            page.through.seq >= self.after.seq,
            "a cursor never moves back"
        );
        self.takes_what_is_left = false;
        self.after = page.through;
        // A page shared with another reader may end before what this one's mark named.
        self.is_caught_up = !page.has_more && self.after.seq >= self.hub.head().seq.max(marked_to);
        self.was_live |= self.is_caught_up;
        Batch {
            events: page.events,
            through: page.through,
            is_caught_up: self.is_caught_up,
            was_live,
            skipped: None,
        }
    }

    /// The turn of a reader that is behind. It is kept until the next read; whoever waits for a slow line ends it first.
    pub const fn turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Live readers need none.
    async fn take_turn(&mut self) {
        // The old one first: nobody may wait for a turn while holding one.
        self.turn = None;
        if !self.is_caught_up {
            self.turn = self.hub.turn(&self.tenant).await;
        }
    }

    /// The next events, waiting for them; or, once, the news that everything has been read.
    ///
    /// # Errors
    /// As [`Follower::read`].
    pub async fn next(&mut self, limit: usize) -> Result<Batch, FollowError> {
        loop {
            let was_caught_up = self.is_caught_up;
            let batch = self.read(limit).await?;
            if !batch.events.is_empty() || (batch.is_caught_up && !was_caught_up) {
                return Ok(batch);
            }
            if batch.is_caught_up {
                self.turn = None;
                if self.entry.is_some() {
                    self.wake.notified().await;
                } else {
                    // And reads again: of what came before there is no mark.
                    self.enter();
                }
            }
        }
    }

    fn check_cuts(&mut self) -> Result<(), FollowError> {
        let cuts = self.hub.cuts();
        if cuts != self.cuts {
            self.cuts = cuts;
            self.is_caught_up = false;
            let known = self.hub.identity().known();
            let began = known.identity.epochs.last().map_or(0, |(_, after)| *after);
            if self.after.seq > began {
                return Err(ReadError::Ahead.into());
            }
        }
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some((reader, _)) = self.entry {
            self.hub.leave(reader, &self.tenant, &self.filter);
        }
    }
}

async fn place(hub: &Arc<Hub>, tenant: &Tenant, start: Start) -> Result<Position, FollowError> {
    // Whoever was answered "stored" by this server finds it here, and not behind what is the latest.
    hub.settled(SETTLE_PATIENCE).await;
    let retained = hub.identity().known().retained_of(tenant);
    match start {
        Start::Earliest => Ok(retained),
        Start::Latest => Ok(hub.head().max(retained)),
        Start::Since(since) => {
            let end = hub.head();
            let before = hub.history()?.position_before(tenant, since, end).await?;
            Ok(before.max(retained))
        }
        Start::After(cursor) => {
            let after = cursor.position;
            if after.seq > hub.tail().watermark.newest
                && !hub.wait_for_newest(after.seq, AHEAD_PATIENCE).await
            {
                return Err(ReadError::Ahead.into());
            }
            check_bounds(after, retained, after.seq)?;
            Ok(after)
        }
    }
}
