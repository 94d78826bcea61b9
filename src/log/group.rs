//! Events of one request on their way to the database.
//!
//! # Invariants
//! - Answered once, after the commit or when it is known that there will be none.
//! - As urgent as the most urgent of its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use super::append::{Answers, Appended};
use super::error::AppendError;
use super::queue::Queue;
use super::writer::Outcome;
use crate::event::{EventId, NewEvent, Priority, Seq, Tenant};
use crate::telemetry::{AppendMetrics, Appending, Fate, Outcomes};

/// Requests that are to be stored in the order they are made: those of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Another than all before.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether a group that is held may be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// It may.
    Yes,
    /// It is not known: it goes on waiting.
    NotYet,
    /// Never again: nobody may write for whoever sent it.
    No,
}

/// What is asked before each attempt at a group that is held.
#[derive(Clone)]
pub struct Leave(Arc<dyn Fn() -> May + Send + Sync>);

impl Leave {
    /// Asks this.
    #[must_use]
    pub fn new(ask: impl Fn() -> May + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl std::fmt::Debug for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leave").field(&(self.0)()).finish()
    }
}

/// Events of one request: neighbours in the log, in their order.
#[derive(Debug)]
pub struct Group {
    pub(super) tenant: Tenant,
    pub(super) events: Vec<NewEvent>,
    pub(super) ids: Vec<EventId>,
    pub(super) expected: Vec<Option<Seq>>,
    /// Stored together or not at all; else each by itself.
    pub(super) is_atomic: bool,
    pub(super) deadline: Instant,
    /// Waits out an open breaker, up to the deadline: the client has asked for it.
    pub(super) is_held: bool,
    /// Whether it still may, should it have been held.
    pub(super) leave: Option<Leave>,
    /// When it came.
    pub(super) received: Instant,
    pub(super) weight: usize,
    /// The most urgent of its events'.
    pub(super) class: Priority,
    pub(super) reply: oneshot::Sender<Answers>,
    pub(super) sequence: Option<Sequence>,
    /// While it is under way.
    pub(super) under_way: Option<UnderWay>,
    /// Its spans, if any of its traces is sampled.
    pub(super) traced: Option<Box<Appending>>,
    /// What a patient lane has found out of each event; empty before.
    pub(super) outcomes: Vec<Option<Outcome>>,
}

/// Keeps the others of a sequence waiting.
#[derive(Debug)]
pub(super) struct UnderWay {
    sequence: Sequence,
    queue: Arc<Queue>,
}

impl UnderWay {
    pub(super) const fn new(sequence: Sequence, queue: Arc<Queue>) -> Self {
        Self { sequence, queue }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.queue.landed(self.sequence);
    }
}

impl Group {
    /// Whether it may be written now.
    pub(super) fn may(&self) -> May {
        self.leave.as_ref().map_or(May::Yes, |leave| (leave.0)())
    }

    pub(super) fn has_expectations(&self) -> bool {
        self.expected.iter().any(Option::is_some)
    }

    /// Answers whoever waits; nobody may be left. What comes back is to be dropped, which for a large batch takes longer
    /// than the answer.
    pub(super) fn answer(self, outcomes: Vec<Outcome>, metrics: &AppendMetrics) -> Vec<NewEvent> {
        let now = Instant::now();
        let after = now.saturating_duration_since(self.received);
        for (event, outcome) in self.events.iter().zip(&outcomes) {
            let fate = fate(outcome);
            metrics.count(event.priority, fate, 1);
            if fate == Fate::Stored {
                metrics.committed(event.priority, after);
            }
        }
        if let Some(traced) = self.traced {
            traced.end(&self.tenant, sums(&outcomes));
        }
        let answers = self
            .ids
            .into_iter()
            .zip(outcomes)
            .enumerate()
            .map(|(index, (id, outcome))| match outcome {
                Ok((position, duplicate)) => Ok(Appended {
                    id,
                    position,
                    duplicate,
                }),
                Err(error) => Err(error.at(index)),
            })
            .collect();
        let _ = self.reply.send(answers);
        self.events
    }
}

/// What became of a request's events, as its spans say it.
fn sums(outcomes: &[Outcome]) -> Outcomes {
    let mut sums = Outcomes::default();
    for outcome in outcomes {
        let sum = match outcome {
            Ok((_, false)) => &mut sums.stored,
            Ok((_, true)) => &mut sums.duplicates,
            Err(_) => &mut sums.failed,
        };
        *sum = sum.saturating_add(1);
    }
    sums
}

/// What became of an event, as it is counted.
const fn fate(outcome: &Outcome) -> Fate {
    match outcome {
        Ok((_, false)) => Fate::Stored,
        Ok((_, true)) => Fate::Duplicate,
        Err(AppendError::Overloaded { .. }) => Fate::Shed,
        Err(
            AppendError::Tripped(_)
            | AppendError::Unavailable(_)
            | AppendError::Internal(_)
            | AppendError::Clock(_),
        ) => Fate::Unavailable,
        Err(_) => Fate::Refused,
    }
}
