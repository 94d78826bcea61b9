//! Connections over which credentials and settings are asked for.
//!
//! # Invariants
//! - A look waits for a moment at most: what is long, or may wait for a lock on a row, goes over another connection.
//! - What reads settings never waits for a lock on a row; what changes anything has a connection of its own (`changes`).
//! - A connection is replaced when it answers nobody, not when one of many that ask over it has waited too long.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::ledger::LedgerError;

/// A connection that has answered nobody for this time is replaced.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// No statement takes longer: the others wait behind it. Shorter than [`STATEMENT_MAX`](crate::event::limits::STATEMENT_MAX), for which
/// nobody waits in line.
const IN_LINE_MAX: Duration = Duration::from_millis(1_500);
/// No read waits longer for a lock, which only a change of the schema has.
const LOCK_MAX: Duration = Duration::from_millis(300);
/// No change waits longer for a lock while others wait for the connection: it is tried again.
const CHANGE_LOCK_MAX: Duration = Duration::from_millis(50);

/// A connection that is replaced when it does not answer.
#[derive(Debug)]
pub(super) struct Line {
    client: Arc<Client>,
    /// How often it has answered, whomever.
    answers: AtomicU64,
    is_silent: AtomicBool,
}

impl Line {
    fn new(client: Client) -> Self {
        Self {
            client: Arc::new(client),
            answers: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
        }
    }

    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// It has answered: for what asks several times.
    pub(super) fn note_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it still answers.
    pub(super) fn is_whole(&self) -> bool {
        !self.client.is_closed() && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Asks over it.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if there is no answer in time, [`LedgerError::HeldUp`] if another transaction is in the way; else as
    /// what is asked.
    pub(super) async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let before = self.answers.load(Ordering::Relaxed);
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Err(LedgerError::Database(error))) if has_failed(&error) => {
                tracing::debug!(%error, "the connection for credentials failed");
                self.is_silent.store(true, Ordering::Relaxed);
                Err(LedgerError::Unavailable)
            }
            Ok(answer) => {
                self.note_answer();
                unless_held_up(answer)
            }
            Err(_) => {
                // If it has answered others meanwhile this one has only stood in line.
                if self.answers.load(Ordering::Relaxed) == before {
                    self.is_silent.store(true, Ordering::Relaxed);
                }
                Err(LedgerError::Unavailable)
            }
        }
    }

    async fn bound(&self, lock: Duration) -> Result<(), LedgerError> {
        let bounds = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}",
            IN_LINE_MAX.as_millis(),
            lock.as_millis(),
        );
        Ok(self.client.batch_execute(&bounds).await?)
    }
}

/// Connections that were opened together, and are replaced together.
#[derive(Debug)]
pub(super) struct Lines {
    /// For looks, and for what is short and reads.
    pub(super) looks: Line,
    /// For reads of settings.
    pub(super) settings: Line,
    /// For all that changes something.
    pub(super) changes: Line,
    /// Another for each set.
    pub(super) number: u64,
}

impl Lines {
    pub(super) fn new(looks: Client, settings: Client, changes: Client, number: u64) -> Self {
        Self {
            looks: Line::new(looks),
            settings: Line::new(settings),
            changes: Line::new(changes),
            number,
        }
    }

    /// Has the database end what takes too long.
    pub(super) async fn bound(&self) -> Result<(), LedgerError> {
        self.looks.bound(LOCK_MAX).await?;
        self.settings.bound(LOCK_MAX).await?;
        self.changes.bound(CHANGE_LOCK_MAX).await
    }

    /// Whether all of them still answer.
    pub(super) fn are_whole(&self) -> bool {
        let all = [&self.looks, &self.settings, &self.changes];
        all.into_iter().all(Line::is_whole)
    }
}

/// Whoever changes the same is in the way: another time.
fn unless_held_up<T>(answer: Result<T, LedgerError>) -> Result<T, LedgerError> {
    let is_held_up = |error: &tokio_postgres::Error| {
        let code = error.code();
        code == Some(&SqlState::QUERY_CANCELED) || code == Some(&SqlState::LOCK_NOT_AVAILABLE)
    };
    match answer {
        Err(LedgerError::Database(error)) if is_held_up(&error) => Err(LedgerError::HeldUp),
        answer => answer,
    }
}

/// Not what a row holds that cannot be read.
fn has_failed(error: &tokio_postgres::Error) -> bool {
    let is_of_line = |source: &(dyn Error + 'static)| source.is::<std::io::Error>();
    error.is_closed() || error.source().is_some_and(is_of_line)
}
