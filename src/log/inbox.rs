//! What reaches the tail from within this server: its own commits, and reasons to look at the log.
//!
//! # Invariants
//! - Bounded: what goes beyond the bound is dropped and a look asked for instead, since the log holds it.
//! - A reason to look is never lost because a commit came with it.
//! - Every own write has a number; the tail says up to which it has handed on what can be handed on, so that whoever has
//!   been answered and reads at the same server finds what it wrote.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::Row;

use crate::event::limits::{INBOX_BYTES_MAX, INBOX_ROWS_MAX};

/// Rows that this server has committed, as the database returned them.
#[derive(Debug)]
pub struct Commit {
    /// The life of the log that the connection wrote to.
    pub epoch: u16,
    /// In the order of their places.
    pub rows: Vec<Row>,
    /// When each of them was received.
    pub received: Vec<Instant>,
    /// When they were committed.
    pub committed: Instant,
}

/// What came since the last time.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Own commits, in no order.
    pub commits: Vec<Commit>,
    /// Somebody else has committed, or wants to know how far the log is, or an own commit's outcome is unknown.
    pub must_look: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    /// The last own write that has been handed on, or cannot be yet.
    settled: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    arrived: Arrived,
    rows: usize,
    bytes: usize,
    writing: usize,
    /// Own writes that have ended.
    ended: u64,
}

impl Inbox {
    /// Makes the tail look at the log.
    pub fn ask_for_look(&self) {
        self.lock().arrived.must_look = true;
        self.arrived.notify_one();
    }

    /// Announces an own write. Ended without [`Writing::commit`] it asks for a look.
    pub fn begin(&self) -> Writing<'_> {
        let mut state = self.lock();
        state.writing = state.writing.saturating_add(1);
        Writing {
            inbox: self,
            commit: None,
            bytes: 0,
        }
    }

    /// Takes what is there, and says whether an own write is under way and how many have ended.
    pub fn take(&self) -> (Arrived, bool, u64) {
        let mut state = self.lock();
        (state.rows, state.bytes) = (0, 0);
        (
            std::mem::take(&mut state.arrived),
            state.writing > 0,
            state.ended,
        )
    }

    /// Says that the own writes up to `ended` have been handed on, or cannot be yet.
    pub fn settle(&self, ended: Option<u64>) {
        if let Some(ended) = ended {
            self.settled
                .send_if_modified(|last| std::mem::replace(last, ended) != ended);
        }
    }

    /// Waits until the own writes that have ended by now are settled, at most for `patience`.
    pub async fn settled(&self, patience: Duration) {
        let ended = self.lock().ended;
        if *self.settled.borrow() < ended {
            let mut settled = self.settled.subscribe();
            let wait = settled.wait_for(|settled| *settled >= ended);
            let _ = tokio::time::timeout(patience, wait).await;
        }
    }

    /// Waits until something has come since the last [`Inbox::take`].
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn end(&self, commit: Option<Commit>, bytes: usize) {
        {
            let mut state = self.lock();
            state.writing = state.writing.saturating_sub(1);
            state.ended = state.ended.saturating_add(1);
            match commit {
                Some(commit) => state.put(commit, bytes),
                None => state.arrived.must_look = true,
            }
        }
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, commit: Commit, bytes: usize) {
        self.rows = self.rows.saturating_add(commit.rows.len());
        self.bytes = self.bytes.saturating_add(bytes);
        if self.rows > INBOX_ROWS_MAX || self.bytes > INBOX_BYTES_MAX {
            self.arrived.commits.clear();
            self.arrived.must_look = true;
            (self.rows, self.bytes) = (0, 0);
        } else {
            self.arrived.commits.push(commit);
        }
    }
}

/// An own write that is under way.
#[derive(Debug)]
pub struct Writing<'a> {
    inbox: &'a Inbox,
    commit: Option<Commit>,
    bytes: usize,
}

impl Writing<'_> {
    /// Hands the rows over. `bytes`: what they weigh, about.
    pub fn commit(mut self, commit: Commit, bytes: usize) {
        self.commit = Some(commit);
        self.bytes = bytes;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.inbox.end(self.commit.take(), self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit {
        Commit {
            epoch: 1,
            rows: Vec::new(),
            received: Vec::new(),
            committed: Instant::now(),
        }
    }

    #[test]
    fn a_reason_to_look_survives_a_commit() {
        let inbox = Inbox::default();
        inbox.ask_for_look();
        inbox.begin().commit(commit(), 1);
        let (arrived, is_writing, _) = inbox.take();
        assert!(arrived.must_look && !is_writing);
        assert_eq!(arrived.commits.len(), 1);
        assert!(!inbox.take().0.must_look);
    }

    #[test]
    fn a_write_without_an_outcome_asks_for_a_look() {
        let inbox = Inbox::default();
        let writing = inbox.begin();
        assert!(inbox.take().1);
        drop(writing);
        let (arrived, is_writing, _) = inbox.take();
        assert!(arrived.must_look && !is_writing);
    }

    #[test]
    fn beyond_the_bound_a_look_takes_the_place_of_the_rows() {
        let inbox = Inbox::default();
        for _ in 0..3 {
            inbox.begin().commit(commit(), INBOX_BYTES_MAX / 2);
        }
        let (arrived, _, _) = inbox.take();
        assert!(arrived.must_look);
        assert!(arrived.commits.is_empty());
        inbox.begin().commit(commit(), INBOX_BYTES_MAX / 2);
        assert_eq!(inbox.take().0.commits.len(), 1);
    }
}
