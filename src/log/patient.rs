//! What takes long: groups that wait for other transactions, or of whose members some are refused.
//!
//! # Invariants
//! - Each group has its turn, however many others there are and however many of its members are at fault.
//! - Only the members at fault fail. One that waited in vain is told so at the deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{Member, members, middle};
use super::error::AppendError;
use super::group::{Group, May};
use super::inbox::Inbox;
use super::lane::{FOUND_MAX, LOCK_TIMEOUT_MIN, answer};
use super::queue::{ASK_AGAIN, Queue};
use super::writer::{Attempts, Outcome, Stopped, Writer};
use crate::tasks::pause;

/// So long is waited for all that waits, for each for its part.
const ROUND: Duration = Duration::from_secs(1);

/// Tries again and again, one group at a time, over a connection of its own.
#[derive(Debug)]
pub struct PatientLane {
    writer: Writer,
    inbox: Arc<Inbox>,
    queue: Arc<Queue>,
}

impl PatientLane {
    /// A lane from `queue` that connects when there is something in it. What it commits, `inbox` is told of.
    #[must_use]
    pub const fn new(writer: Writer, inbox: Arc<Inbox>, queue: Arc<Queue>) -> Self {
        Self {
            writer,
            inbox,
            queue,
        }
    }

    /// Gives each group of its queue its turns until `stop`; a turn is finished.
    pub async fn run(mut self, stop: &CancellationToken) {
        let queue = Arc::clone(&self.queue);
        loop {
            let next = async {
                self.writer.ready().await;
                queue.open();
                queue.next_group().await
            };
            match stop.run_until_cancelled(next).await {
                Some(group) => self.attend(group).await,
                None => return,
            }
        }
    }

    /// Answers the group if nothing of it is left open after this turn or its deadline has come; else puts it at the end.
    async fn attend(&mut self, mut group: Group) {
        match group.may() {
            May::Yes => {}
            // Dropped, which answers it.
            May::No => return,
            May::NotYet if group.deadline <= Instant::now() => return,
            May::NotYet => {
                pause(ASK_AGAIN).await;
                let _ = self.queue.push(group);
                return;
            }
        }
        if group.outcomes.is_empty() {
            group.outcomes.resize_with(group.events.len(), || None);
        } else if group.deadline <= Instant::now() {
            for outcome in &mut group.outcomes {
                outcome.get_or_insert(Err(AppendError::Blocked));
            }
        }
        let inbox = Arc::clone(&self.inbox);
        let writing = inbox.begin();
        for (place, outcome) in self.write(&group).await {
            if let Some(open) = group.outcomes.get_mut(place) {
                *open = Some(outcome);
            }
        }
        drop(writing);
        if group.outcomes.iter().all(Option::is_some) {
            let outcomes = group.outcomes.drain(..).flatten().collect();
            answer(vec![group], outcomes, self.writer.metrics()).await;
        } else {
            // At the bound of the queue it is dropped, which answers it: not stored in time.
            let _ = self.queue.push(group);
        }
    }

    /// Writes what is open of a group, by halves, until what fails stands alone. What is blocked stays open, and so does what
    /// is left when it is the others' turn. Returns what became of the members, with their places.
    async fn write(&mut self, group: &Group) -> Vec<(usize, Outcome)> {
        let members = members(std::slice::from_ref(group));
        let (places, open): (Vec<usize>, Vec<Member<'_>>) = group
            .outcomes
            .iter()
            .zip(members)
            .enumerate()
            .filter(|(_, (outcome, _))| outcome.is_none())
            .map(|(place, (_, member))| (place, member))
            .unzip();
        let mut found = Vec::with_capacity(open.len());
        if open.is_empty() {
            return found;
        }
        self.writer
            .wait_for_locks(self.share(group, open.len()))
            .await;
        let may = || group.may() == May::Yes;
        let mut parts = vec![(places.as_slice(), open.as_slice())];
        let (mut failures, mut internal_errors) = (0_usize, 0_usize);
        while let Some((places, part)) = parts.pop() {
            let attempts = Attempts {
                deadline: group.deadline,
                may: &may,
                has_others: false,
            };
            let (error, is_slow) = match self.writer.write_until(part, attempts).await {
                Ok(written) => {
                    found.extend(places.iter().copied().zip(written.outcomes));
                    continue;
                }
                Err(Stopped::Failed(error)) => (error, false),
                Err(Stopped::Slow(trouble)) => {
                    let is_in_time = Instant::now() < group.deadline;
                    (AppendError::Unavailable(trouble), is_in_time)
                }
                // Asked anew when it has its next turn.
                Err(Stopped::NotAll) => break,
            };
            if group.is_held && matches!(error, AppendError::Tripped(_)) {
                break;
            }
            let is_blocked = matches!(error, AppendError::Blocked);
            let is_own = is_blocked || is_slow || error.is_of_content(&mut internal_errors);
            match middle(part).filter(|_| is_own) {
                Some(at) => {
                    let ((places, more_places), (part, more)) =
                        (places.split_at(at), part.split_at(at));
                    parts.extend([(more_places, more), (places, part)]);
                }
                None if is_blocked => {}
                None => found.extend(places.iter().map(|place| (*place, Err(error.twin())))),
            }
            failures = failures.saturating_add(1);
            if failures >= FOUND_MAX {
                break;
            }
        }
        found
    }

    /// How long each of the open members may wait for locks, so that the others' turn comes.
    fn share(&self, group: &Group, open: usize) -> Duration {
        let (others, _) = self.queue.depth();
        let all = u32::try_from(others.saturating_add(open)).unwrap_or(u32::MAX);
        let left = group.deadline.saturating_duration_since(Instant::now());
        let share = ROUND.checked_div(all).unwrap_or(ROUND);
        share.min(left).max(LOCK_TIMEOUT_MIN)
    }
}
