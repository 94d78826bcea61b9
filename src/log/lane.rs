//! Writes batches, one after the other.
//!
//! # Invariants
//! - A group that the database refuses, or that has to wait for another transaction, is the affair of whoever sent it: a quick
//!   lane finds it and leaves what takes long to the patient ones.
//! - A group is answered once. Until its deadline it survives a lost connection, a restarting database and a deadlock;
//!   since every event has an id, sending it again stores nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{Member, halves, members, middle};
use super::error::{AppendError, Remedy, Unavailable};
use super::identity::Identity;
use super::inbox::Inbox;
use super::listener::Listener;
use super::queue::{Group, Queue};
use super::writer::{Outcome, Writer, Written};
use crate::pg::Connector;
use crate::tasks::pause;

/// So many groups of a batch that is blocked are found out to be; the rest is left to the patient lanes unseen.
const SET_ASIDE_MAX: usize = 32;

/// So often an error whose cause is not known is taken for a member's own; then it is everybody's.
const INTERNAL_ERRORS_MAX: usize = 16;

const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a lane may take over a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hardly: behind it wait others who have nothing to do with them.
    Quick,
    /// Until the group's deadline.
    Patient,
}

impl Kind {
    /// Shorter than [`DATABASE_SILENCE_MAX`], so that the database gives up first and nothing is left under way.
    ///
    /// [`DATABASE_SILENCE_MAX`]: crate::event::limits::DATABASE_SILENCE_MAX
    const fn lock_timeout(self) -> Duration {
        match self {
            Self::Quick => Duration::from_millis(200),
            Self::Patient => Duration::from_secs(4),
        }
    }
}

/// To find out which groups of a batch are blocked.
const LOCK_TIMEOUT_OF_ONE: Duration = Duration::from_millis(10);

/// What a lane gives back of a batch.
#[derive(Debug)]
enum Undone {
    /// Another transaction is in the way of at least one.
    Blocked(Vec<Group>),
    /// At least one is refused.
    Refused(Vec<Group>),
}

/// Writes batches over a connection of its own.
#[derive(Debug)]
pub struct Lane {
    kind: Kind,
    writer: Writer,
    inbox: Arc<Inbox>,
    /// What takes long.
    patient: Arc<Queue>,
}

impl Lane {
    /// A lane that connects when it first writes. What it commits goes to `inbox`; `listener` knows this server's slot.
    #[must_use]
    pub fn new(
        kind: Kind,
        number: usize,
        connector: Connector,
        identity: Identity,
        inbox: Arc<Inbox>,
        listener: Listener,
        patient: Arc<Queue>,
    ) -> Self {
        let purpose = match kind {
            Kind::Quick => format!("append {number}"),
            Kind::Patient => format!("append patiently {number}"),
        };
        Self {
            kind,
            writer: Writer::new(purpose, kind.lock_timeout(), connector, identity, listener),
            inbox,
            patient,
        }
    }

    /// Writes what the queue holds until `stop`; a batch that was taken is finished.
    pub async fn run(mut self, queue: &Queue, stop: &CancellationToken) {
        // Connected before the first event, so that it does not wait for it.
        if self.kind == Kind::Quick {
            let _ = stop.run_until_cancelled(self.writer.connect()).await;
        }
        loop {
            let next = match self.kind {
                Kind::Quick => stop.run_until_cancelled(queue.next_batch()).await,
                // One at a time: what it waits for is not what the next waits for.
                Kind::Patient => stop.run_until_cancelled(self.patient.next_group()).await,
            };
            let Some(batch) = next else { return };
            self.write(batch).await;
        }
    }

    /// Writes and answers a batch, or leaves what takes long to the patient lanes.
    async fn write(&mut self, batch: Vec<Group>) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.write_part(part).await {
                None => {}
                Some(Undone::Blocked(groups)) => self.set_aside(groups).await,
                Some(Undone::Refused(mut groups)) => {
                    let second = groups.split_off(groups.len().div_euclid(2));
                    if groups.is_empty() {
                        self.leave(second);
                    } else {
                        parts.extend([second, groups]);
                    }
                }
            }
        }
    }

    /// Writes several groups with one statement and answers them, unless one is in the others' way. Only a patient lane
    /// takes its time for one group that has to wait, or of whose members some are refused.
    async fn write_part(&mut self, batch: Vec<Group>) -> Option<Undone> {
        let deadline = batch
            .iter()
            .map(|group| group.deadline)
            .min()
            .unwrap_or_else(Instant::now);
        let inbox = Arc::clone(&self.inbox);
        let writing = inbox.begin();
        let members = members(&batch);
        let outcomes = match self.write_until(&members, deadline).await {
            Ok(Written { outcomes, commit }) => {
                if let Some(commit) = commit {
                    writing.commit(commit, batch.iter().map(|group| group.weight).sum());
                } else {
                    drop(writing);
                }
                outcomes
            }
            Err(AppendError::Blocked) if self.kind == Kind::Quick => {
                return Some(Undone::Blocked(batch));
            }
            Err(error) if error.is_of_content() && middle(&members).is_some() => {
                if self.kind == Kind::Quick {
                    return Some(Undone::Refused(batch));
                }
                let outcomes = self.write_members(&members, deadline).await;
                drop(writing);
                outcomes
            }
            Err(error) => {
                drop(writing);
                members.iter().map(|_| Err(error.twin())).collect()
            }
        };
        let mut outcomes = outcomes.into_iter();
        let mut spent = Vec::with_capacity(batch.len());
        for group in batch {
            let own = outcomes.by_ref().take(group.events.len()).collect();
            spent.push(group.answer(own));
        }
        // Whoever was answered goes first: it may bring the next batch.
        tokio::task::yield_now().await;
        drop(spent);
        None
    }

    /// Some members of a group are refused: halves, in order, until each stands alone and only it fails. What is not written
    /// by the deadline shares the last error.
    async fn write_members(&mut self, members: &[Member<'_>], deadline: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut parts = halves(members);
        let mut internal_errors = 0_usize;
        while let Some(part) = parts.pop() {
            match self.write_until(part, deadline).await {
                Ok(written) => outcomes.extend(written.outcomes),
                Err(error) => {
                    let is_known = !matches!(error, AppendError::Internal(_));
                    internal_errors = internal_errors.saturating_add(usize::from(!is_known));
                    let is_own = is_known || internal_errors <= INTERNAL_ERRORS_MAX;
                    if error.is_of_content() && is_own && middle(part).is_some() {
                        parts.extend(halves(part));
                        continue;
                    }
                    outcomes.extend(part.iter().map(|_| Err(error.twin())));
                    if Instant::now() >= deadline {
                        let rest = parts.drain(..).rev().flatten();
                        outcomes.extend(rest.map(|_| Err(AppendError::Blocked)));
                    }
                }
            }
        }
        outcomes
    }

    /// Finds out which groups have to wait, and leaves them to the patient lanes.
    async fn set_aside(&mut self, batch: Vec<Group>) {
        if batch.len() == 1 {
            return self.leave(batch);
        }
        self.writer.wait_for_locks(LOCK_TIMEOUT_OF_ONE).await;
        let mut blocked = 0_usize;
        for group in batch {
            if blocked >= SET_ASIDE_MAX {
                self.leave(vec![group]);
                continue;
            }
            match self.write_part(vec![group]).await {
                None => {}
                Some(Undone::Blocked(group)) => {
                    blocked = blocked.saturating_add(1);
                    self.leave(group);
                }
                Some(Undone::Refused(group)) => self.leave(group),
            }
        }
        self.writer.wait_for_locks(self.kind.lock_timeout()).await;
    }

    /// For the patient lanes. At the bound of their queue a group is dropped, which answers it: not stored in time.
    fn leave(&self, groups: Vec<Group>) {
        for group in groups {
            let _ = self.patient.push(group);
        }
    }

    /// Writes the members, reconnecting and retrying until `deadline`.
    async fn write_until(
        &mut self,
        members: &[Member<'_>],
        deadline: Instant,
    ) -> Result<Written, AppendError> {
        let mut backoff = BACKOFF_MIN;
        let mut look_up =
            self.writer.looks_first() || members.iter().any(|member| member.expected.is_some());
        loop {
            if self.kind == Kind::Patient {
                let left = deadline.saturating_duration_since(Instant::now());
                self.writer
                    .wait_for_locks(left.clamp(LOCK_TIMEOUT_OF_ONE, self.kind.lock_timeout()))
                    .await;
            }
            let trouble = match self.writer.write(members, look_up).await {
                Ok(written) => return Ok(written),
                Err(Remedy::LookUp) => {
                    look_up = true;
                    self.writer.look_first();
                    if Instant::now() < deadline {
                        continue;
                    }
                    Unavailable::Silent.into()
                }
                Err(Remedy::Wait(_)) if self.kind == Kind::Quick => {
                    return Err(AppendError::Blocked);
                }
                Err(Remedy::Wait(_)) => AppendError::Blocked,
                Err(Remedy::Refuse(error)) => return Err(error),
                Err(Remedy::Retry(error)) => Unavailable::Lost(error).into(),
                Err(Remedy::Reconnect(trouble)) => {
                    self.writer.disconnect();
                    trouble.into()
                }
            };
            if Instant::now()
                .checked_add(backoff)
                .is_none_or(|then| then >= deadline)
            {
                return Err(trouble);
            }
            tracing::warn!(error = %trouble, lane = self.writer.purpose(), "an append is tried again");
            pause(backoff).await;
            backoff = backoff.saturating_mul(2).min(BACKOFF_MAX);
        }
    }
}
