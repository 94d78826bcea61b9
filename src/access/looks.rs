//! Looks for what has changed, and how late they are.
//!
//! # Invariants
//! - A look waits for nobody's lock on a row. Whoever needs one joins that which has not begun: however many ask, one is under way
//!   and one more waits.
//! - What another server of the database says (after a failover that no connection has noticed, behind a pooler or a name) is
//!   compared with nothing of before: credentials are read anew, settings compared by their marks, before it counts as seen.
//! - Each statement of a look has its own time: reading all credentials takes as long as it takes, and what was in force stays until then.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ledger::LedgerError;
use super::lines::{ANSWER_TIMEOUT, Line, Lines};
use super::news::{self, Seen};
use super::registry::Registry;
use crate::tasks::pause;

/// Changes are looked for this often, whatever NOTIFY says.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// And no more often than this, whoever notifies.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// When the last look is older than this, credentials count as unknown: a connection that failed is replaced sooner.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// As of when all that is remembered is.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    /// None: nothing was read over these connections.
    pub(super) seen: Option<Seen>,
    /// Whoever had asked for a look before this one has been served.
    served: u64,
}

/// When credentials were looked up last, and why not since.
#[derive(Debug)]
pub(super) struct Looked {
    at: Instant,
    cause: Cause,
}

impl Default for Looked {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            cause: Cause::Silent,
        }
    }
}

/// Why credentials cannot be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// No connection can be opened.
    NoConnection,
    /// The database does not answer.
    Silent,
    /// Another transaction holds a lock on what is looked at.
    Locked,
    /// The database refuses, with this SQLSTATE.
    Refused(Box<str>),
}

impl Cause {
    pub(super) fn of(error: &LedgerError) -> Self {
        match error {
            LedgerError::HeldUp => Self::Locked,
            LedgerError::Database(error) => error.code().map_or(Self::Silent, |code| {
                let code = code.code();
                Self::Refused(code.into())
            }),
            _ => Self::Silent,
        }
    }
}

/// Credentials have not been looked up for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// For how long.
    pub by: Duration,
    /// Why.
    pub cause: Cause,
}

impl Registry {
    /// Whether credentials could not be looked up for some seconds, in which revocations are not heard of.
    #[must_use]
    pub fn late(&self) -> Option<Late> {
        let looked = self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let by = looked.at.elapsed();
        let cause = looked.cause.clone();
        (by > LATE_AFTER).then_some(Late { by, cause })
    }

    /// How long ago credentials were looked up last.
    #[must_use]
    pub fn looked_before(&self) -> Duration {
        let looked = self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.at.elapsed()
    }

    /// A look has been tried.
    pub(super) fn note_look(&self, failed: Option<Cause>) {
        let mut looked = self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
        match failed {
            None => *looked = Looked::default(),
            Some(cause) => looked.cause = cause,
        }
    }

    /// Looks for changes until a connection fails.
    pub(super) async fn watch(&self, lines: &Lines) -> Result<(), LedgerError> {
        loop {
            let _ = tokio::time::timeout(LOOK_INTERVAL, self.0.wake.notified()).await;
            let looked = self.look(&lines.looks).await;
            self.note_look(looked.as_ref().err().map(Cause::of));
            match looked {
                // Another connection would be held up as well, or stand in the same line.
                Err(LedgerError::HeldUp | LedgerError::Unavailable) if lines.are_whole() => {}
                looked => looked?,
            }
            if !lines.are_whole() {
                return Err(LedgerError::Unavailable);
            }
            pause(LOOK_PAUSE).await;
        }
    }

    /// What is looked at from now on is in force when this returns.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub(super) async fn look_now(&self) -> Result<(), LedgerError> {
        let lines = self.0.lines()?;
        let look = self.look(&lines.looks);
        let looked = tokio::time::timeout(ANSWER_TIMEOUT, look).await;
        looked.unwrap_or(Err(LedgerError::Unavailable))
    }

    /// Everything anew, whatever was read over other connections.
    pub(super) async fn look_anew(&self, line: &Line) -> Result<(), LedgerError> {
        let mut refreshed = self.0.refreshed.lock().await;
        *refreshed = Refreshed::default();
        self.look_into(&mut refreshed, line).await
    }

    async fn look(&self, line: &Line) -> Result<(), LedgerError> {
        let place = self.0.asked.fetch_add(1, Ordering::SeqCst);
        let mut refreshed = self.0.refreshed.lock().await;
        if refreshed.served > place {
            return Ok(());
        }
        self.look_into(&mut refreshed, line).await
    }

    /// Takes over what has changed: of credentials at once, as they stand now; what is remembered of the settings of tenants that have
    /// changed them is read again when it is asked for.
    async fn look_into(&self, refreshed: &mut Refreshed, line: &Line) -> Result<(), LedgerError> {
        let served = self.0.asked.load(Ordering::SeqCst);
        let before = refreshed.seen.as_ref();
        let snapshot = before.map(|seen| seen.snapshot.as_str());
        let news = line.ask(news::news(line.client(), snapshot)).await?;
        for (tenant, mark) in &news.settings {
            self.0.settings.announce(tenant, *mark).await;
        }
        match before {
            Some(seen) if seen.leads_to(&news.seen) => {
                if news.of_credentials {
                    self.take_changes(line, &seen.snapshot).await?;
                }
            }
            // Transactions have other numbers there, or marks have gone: what they say of the snapshot before says nothing.
            Some(_) => {
                self.take_all(line).await?;
                line.ask(self.compare_settings(line)).await?;
            }
            None => self.take_all(line).await?,
        }
        refreshed.seen = Some(news.seen);
        refreshed.served = served;
        Ok(())
    }
}
