//! Connections over which credentials and settings are asked for.
//!
//! # Invariants
//! - A look waits for a moment at most: what is long goes over the other connection, and what may wait for a lock gives up soon.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::ledger::LedgerError;

/// A connection that has not answered within this time is replaced.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// No statement about settings takes longer, or waits longer for a lock: the others wait behind it.
const STATEMENT_MAX: Duration = Duration::from_millis(1_500);
const LOCK_MAX: Duration = Duration::from_millis(300);

/// Two connections that were opened together, and are replaced together.
#[derive(Debug)]
pub(super) struct Lines {
    /// For looks, and for what is short.
    pub(super) looks: Arc<Client>,
    /// For settings.
    pub(super) settings: Client,
    /// Another for each pair.
    pub(super) number: u64,
    /// The one for settings has not answered in time.
    is_silent: AtomicBool,
}

impl Lines {
    pub(super) fn new(looks: Client, settings: Client, number: u64) -> Self {
        Self {
            looks: Arc::new(looks),
            settings,
            number,
            is_silent: AtomicBool::new(false),
        }
    }

    /// Has the database end what takes too long.
    pub(super) async fn bound(&self) -> Result<(), LedgerError> {
        let bounds = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}",
            STATEMENT_MAX.as_millis(),
            LOCK_MAX.as_millis(),
        );
        self.looks.batch_execute(&bounds).await?;
        Ok(self.settings.batch_execute(&bounds).await?)
    }

    /// Whether the one for settings still answers.
    pub(super) fn is_whole(&self) -> bool {
        !self.settings.is_closed() && !self.is_silent.load(Ordering::Relaxed)
    }

    /// Asks over the connection for settings. One that does not answer in time is replaced.
    ///
    /// # Errors
    /// As what is asked.
    pub(super) async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        let answer = in_time(asked).await;
        if matches!(answer, Err(LedgerError::Unavailable)) {
            self.is_silent.store(true, Ordering::Relaxed);
        }
        unless_held_up(answer)
    }
}

/// Whoever changes the same is in the way: another time.
pub(super) fn unless_held_up<T>(answer: Result<T, LedgerError>) -> Result<T, LedgerError> {
    let is_held_up = |error: &tokio_postgres::Error| {
        let code = error.code();
        code == Some(&SqlState::QUERY_CANCELED) || code == Some(&SqlState::LOCK_NOT_AVAILABLE)
    };
    match answer {
        Err(LedgerError::Database(error)) if is_held_up(&error) => Err(LedgerError::Unavailable),
        answer => answer,
    }
}

/// An answer in time, or none.
pub(super) async fn in_time<T>(
    asked: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    match answered.unwrap_or(Err(LedgerError::Unavailable)) {
        // Not what a row holds that cannot be read.
        Err(LedgerError::Database(error)) if has_failed(&error) => {
            tracing::debug!(%error, "the connection for credentials failed");
            Err(LedgerError::Unavailable)
        }
        answer => answer,
    }
}

fn has_failed(error: &tokio_postgres::Error) -> bool {
    let is_of_line = |source: &(dyn Error + 'static)| source.is::<std::io::Error>();
    error.is_closed() || error.source().is_some_and(is_of_line)
}
