//! Looks for what has changed, and how late they are.
//!
//! # Invariants
//! - A look waits for nobody's lock on a row. Whoever needs one joins that which has not begun: however many ask, one is under way
//!   and one more waits.
//! - What another server of the database says (after a failover that no connection has noticed, behind a pooler or a name) is
//!   compared with nothing of before: credentials are read anew, settings compared by their marks, before it counts as seen.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::api_key::KeyId;
use super::ledger::{self, LedgerError};
use super::lines::{Line, Lines};
use super::principal::Credential;
use super::registry::Registry;
use super::revocations;
use crate::tasks::pause;

/// Changes are looked for this often, whatever NOTIFY says.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// And no more often than this, whoever notifies.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Keys read in one statement.
const KEYS_PER_READ: usize = 1_000;
/// When the last look is older than this, credentials count as unknown: a connection that failed is replaced sooner.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// As of when all that is remembered is.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    /// Of keys and revocations.
    version: Option<i64>,
    /// Of settings.
    snapshot: Option<String>,
    /// Which server of the database has said so.
    server: Option<String>,
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
            let looked = lines.looks.ask(self.look(&lines.looks)).await;
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
        lines.looks.ask(self.look(&lines.looks)).await
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

    /// Reads again what is remembered of credentials, if one has changed, and ends what has lost its own; what is remembered
    /// of the settings of tenants that have changed them is read again when it is asked for.
    async fn look_into(&self, refreshed: &mut Refreshed, line: &Line) -> Result<(), LedgerError> {
        let served = self.0.asked.load(Ordering::SeqCst);
        let news = ledger::news(line.client(), refreshed.snapshot.as_deref()).await?;
        line.note_answer();
        let before = refreshed.server.as_ref();
        let is_elsewhere = before.is_some_and(|before| *before != news.server);
        for (tenant, mark) in news.settings {
            self.0.settings.announce(&tenant, mark).await;
        }
        refreshed.snapshot = Some(news.snapshot);
        if is_elsewhere || refreshed.version != Some(news.version) {
            // First: what is looked up from now on and is older is not kept.
            self.0.version.store(news.version, Ordering::SeqCst);
            self.refresh(line).await?;
            refreshed.version = Some(news.version);
        }
        if is_elsewhere {
            // Transactions have other numbers there: what they say of the snapshot before says nothing.
            self.compare_settings(line).await?;
        }
        refreshed.server = Some(news.server);
        refreshed.served = served;
        Ok(())
    }

    async fn refresh(&self, line: &Line) -> Result<(), LedgerError> {
        let revoked = Arc::new(revocations::revoked(line.client()).await?);
        line.note_answer();
        *self
            .0
            .revoked
            .write()
            .unwrap_or_else(PoisonError::into_inner) = revoked;
        let mut ids: HashSet<KeyId> = self.0.keys.iter().map(|(id, _)| (*id).clone()).collect();
        ids.extend(self.leases().keys());
        let mut current = HashMap::new();
        let texts: Vec<&str> = ids.iter().map(KeyId::as_str).collect();
        for texts in texts.chunks(KEYS_PER_READ) {
            let read = ledger::keys(line.client(), texts).await?;
            line.note_answer();
            current.extend(
                read.into_iter()
                    .map(|(key, _)| (key.id.clone(), Arc::new(key))),
            );
        }
        for id in &ids {
            match current.get(id) {
                Some(key) => self.0.keys.insert(id.clone(), Arc::clone(key)).await,
                None => self.0.keys.invalidate(id).await,
            }
        }
        let revoked = self.revoked();
        self.leases().end_where(|bearer| match &bearer.credential {
            // A key that came into use meanwhile has been looked at by whoever used it.
            Credential::ApiKey(id) => {
                ids.contains(id) && current.get(id).is_none_or(|key| key.is_revoked)
            }
            Credential::Token { .. } => revoked.covers(bearer),
            Credential::None => false,
        });
        Ok(())
    }
}
