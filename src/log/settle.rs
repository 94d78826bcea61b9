//! Which of this server's own writes have been handed on.
//!
//! # Invariants
//! - A write counts as settled once the tail has come past its events, or could not for a while because an open transaction
//!   holds the watermark back: readers that begin wait for the former, and not for the latter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::Seq;

/// Readers that begin do not wait longer for a transaction that holds the watermark back.
const HELD_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Ticket {
    /// The number of the last write that it stands for.
    ended: u64,
    since: Instant,
    /// Its events lie at or below this; known after a look.
    until: Option<Seq>,
}

/// Writes that have ended and are not settled, oldest first.
#[derive(Debug, Default)]
pub struct Tickets {
    waiting: VecDeque<Ticket>,
    last: u64,
}

impl Tickets {
    /// The writes up to this number have ended.
    pub fn take(&mut self, ended: u64) {
        if ended > self.last {
            self.last = ended;
            self.waiting.push_back(Ticket {
                ended,
                since: Instant::now(),
                until: None,
            });
        }
    }

    /// All that ended has been handed on: the last number.
    pub fn settle_all(&mut self) -> Option<u64> {
        self.waiting
            .drain(..)
            .map(|ticket| ticket.ended)
            .next_back()
    }

    /// A look, begun after the last [`Tickets::take`], has seen events up to `visible` and handed them on up to `reached`.
    /// The last number that is settled by it.
    pub fn looked(&mut self, visible: Seq, reached: Seq) -> Option<u64> {
        let mut settled = None;
        for ticket in &mut self.waiting {
            ticket.until.get_or_insert(visible);
        }
        while let Some(first) = self.waiting.front() {
            let is_there = first.until.is_some_and(|until| until <= reached);
            if !is_there && first.since.elapsed() < HELD_MAX {
                break;
            }
            settled = Some(first.ended);
            self.waiting.pop_front();
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_settled_when_its_events_are_passed_and_not_by_an_earlier_look() {
        let mut tickets = Tickets::default();
        tickets.take(1);
        assert_eq!(tickets.looked(10, 5), None, "events up to 10 are held back");
        tickets.take(2);
        tickets.take(2);
        assert_eq!(tickets.looked(20, 10), Some(1));
        assert_eq!(
            tickets.looked(25, 20),
            Some(2),
            "what came later does not count"
        );
        tickets.take(3);
        tickets.take(4);
        assert_eq!(tickets.settle_all(), Some(4));
        assert_eq!(tickets.settle_all(), None);
    }

    #[test]
    fn nobody_waits_for_ever_for_what_is_held_back() {
        let mut tickets = Tickets::default();
        tickets.take(1);
        if let Some(first) = tickets.waiting.front_mut() {
            first.since = first.since.checked_sub(HELD_MAX).unwrap();
        }
        assert_eq!(tickets.looked(10, 5), Some(1));
    }
}
