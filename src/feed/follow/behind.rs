//! What a reader gets that is behind the window: history, a gap, or its end, as it asked.
//!
//! # Invariants
//! - No turn is held while the database is waited for.
//! - The place does not move before the answer is handed out ([`Follower::pass`]): to give up in between loses nothing.

use super::{Batch, Follower, OnLag, Skipped};
use crate::event::Position;
use crate::feed::error::FollowError;
use crate::log::Page;
use crate::log::error::check_bounds;

/// A reader is behind the window.
#[derive(Debug, Clone, Copy)]
pub struct Behind {
    /// The window's end when the mark was taken.
    pub(super) head: Position,
    /// It had been caught up until now.
    pub(super) has_fallen: bool,
}

/// What lies before the window, until it is handed out.
#[derive(Debug)]
pub struct Past {
    head: Position,
    what: What,
}

#[derive(Debug)]
enum What {
    Page(Page),
    /// It goes on at the head.
    Skip(Option<Skipped>),
}

impl Past {
    /// Bytes of its events.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.what {
            What::Page(page) => page.events.iter().map(|event| event.json.len()).sum(),
            What::Skip(_) => 0,
        }
    }
}

impl Follower {
    /// Whether it stays, though it has fallen behind.
    ///
    /// # Errors
    /// If it had been live, and asked to be disconnected then.
    pub fn stays(&self) -> Result<(), FollowError> {
        if self.was_live && self.on_lag == OnLag::Disconnect {
            self.hub.metrics().disconnected();
            return Err(FollowError::Lagging);
        }
        Ok(())
    }

    /// Asks the database for what the window does not hold, at most `limit` events. The place stays until
    /// [`Follower::pass`].
    ///
    /// # Errors
    /// If retention has overtaken the reader, it asked to be disconnected, or the database cannot be asked.
    pub async fn read_behind(
        &mut self,
        Behind { head, has_fallen }: Behind,
        limit: usize,
    ) -> Result<Past, FollowError> {
        self.stays()?;
        if self.was_live && self.on_lag == OnLag::Skip {
            let skipped = self.skipped(head).await;
            let what = What::Skip(skipped);
            return Ok(Past { head, what });
        }
        let metrics = self.hub.metrics();
        metrics.history_reads.inc();
        if has_fallen {
            metrics.caught_up_by_history();
        }
        // In a box: few readers are in history at a time, and the others need not hold room for it.
        let mut page = Box::pin(self.read_history(head, limit)).await;
        if self.takes_what_is_left && page.as_ref().is_err_and(FollowError::is_expired) {
            // Retention ran elsewhere, and this is the first that is heard of it.
            self.skip_to_earliest();
            page = Box::pin(self.read_history(head, limit)).await;
        }
        let what = What::Page(page?);
        Ok(Past { head, what })
    }

    /// Waits for the turn in which that is handed out; what is skipped needs none.
    pub async fn take_turn_for(&mut self, past: &Past) {
        if matches!(past.what, What::Page(_)) {
            self.take_turn().await;
        }
    }

    /// Hands out what [`Follower::read_behind`] has brought, and moves the place.
    pub fn pass(&mut self, Past { head, what }: Past) -> Batch {
        match what {
            What::Page(page) => self.hand_out(page, head.seq, false),
            What::Skip(skipped) => {
                self.after = head.max(self.after);
                Batch {
                    events: Vec::new(),
                    through: self.after,
                    is_caught_up: false,
                    was_live: false,
                    skipped,
                }
            }
        }
    }

    /// What is left out up to the present; where that is nothing there is nothing to tell.
    async fn skipped(&self, present: Position) -> Option<Skipped> {
        let (from, to) = (self.after, present.max(self.after));
        self.hub.metrics().skipped();
        let gate = self.hub.gate();
        let count = match self.pace.admit() {
            Ok(()) => Box::pin(gate.count(&self.tenant, &self.filter, from, to)).await,
            Err(_) => None,
        };
        (count != Some(0)).then_some(Skipped { from, count })
    }

    /// Goes on at the earliest event that retention has left. Returns the place it had reached and the one it goes on at.
    pub fn skip_to_earliest(&mut self) -> (Position, Position) {
        let from = self.after;
        let known = self.hub.identity().known();
        self.after = known.retained_of(&self.tenant).max(from);
        self.is_caught_up = false;
        (from, self.after)
    }

    /// Reads up to `head`, the window's end when the mark was taken: to less far, and what the mark named would be lost.
    async fn read_history(&self, head: Position, limit: usize) -> Result<Page, FollowError> {
        let known = self.hub.identity().known();
        let retained = known.retained_of(&self.tenant);
        check_bounds(self.after, retained, head.seq.max(self.after.seq))?;
        let gate = self.hub.history()?;
        self.pace
            .admit()
            .map_err(|wait| FollowError::TooOften { wait })?;
        let page = gate
            .page(&self.tenant, &self.filter, self.after, head, limit)
            .await?;
        Ok(Page {
            events: page.events.clone(),
            through: page.through.max(self.after),
            has_more: page.has_more,
        })
    }
}
