//! Appends that are held while the database is away (`Prefer: wait`).
//!
//! # Invariants
//! - Held is what may still be written: the credential is looked at before each attempt, as of a moment ago, and nothing of a
//!   credential that has ended is written later.
//! - What a writer's tenant has set is read before its events are taken, however long that is waited for.
//! - Those that wait for that are bounded as the queue is, each tenant by its share.
//! - Whatever is waited for, the answer comes when the time is over that the client has named. A read that is under way then goes
//!   on for whoever asks next, and the first has all the time there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::app::App;
use super::caller;
use super::errors;
use super::policy;
use super::problem::{Kind, Problem};
use crate::access::{Lease, Policy, Principal};
use crate::log::{AppendOptions, Appended, Leave, May};
use crate::tasks::pause;

/// Revocations are heard of within this time; what has been held for longer waits for a look.
const FRESH: Duration = Duration::from_secs(2);
/// Between two tries to read a tenant's settings.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a request's events are held at most, if at all, and for whom.
#[derive(Debug)]
pub struct Held {
    until: Option<Instant>,
    lease: Arc<Lease>,
}

impl Held {
    /// Of a request that asks to be held for so long, or not at all.
    ///
    /// # Errors
    /// 401 or 503.
    pub async fn begin(
        app: &App,
        principal: &Principal,
        wait: Option<Duration>,
    ) -> Result<Self, Problem> {
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        let lease = in_time(until, caller::lease(app, principal)).await?;
        let lease = Arc::new(lease);
        Ok(Self { until, lease })
    }

    /// For as long as this lasts.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What goes on with it otherwise.
    #[must_use]
    pub fn into_lease(self) -> Arc<Lease> {
        self.lease
    }

    /// Does what takes the client's time, such as taking its body: that is not of what it waits.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn of_client<T>(
        &mut self,
        work: impl AsyncFnOnce(&Lease) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let began = Instant::now();
        let done = work(&self.lease).await;
        let took = began.elapsed();
        self.until = self.until.and_then(|until| until.checked_add(took));
        done
    }

    /// What the tenant has set, as soon as it can be read.
    ///
    /// # Errors
    /// 503 if that is too late, 401 if the credential ends meanwhile.
    pub async fn policy(&self, app: &App, principal: &Principal) -> Result<Policy, Problem> {
        let read = || {
            let reading = caller::under(&self.lease, policy::of(app, principal));
            Box::pin(in_time(self.until, reading))
        };
        let mut last = read().await;
        let Some(until) = self.until else {
            return last;
        };
        let is_away = |read: &Result<Policy, Problem>| {
            let problem = read.as_ref().err();
            problem.is_some_and(|problem| problem.kind == Kind::Unavailable)
        };
        if !is_away(&last) {
            return last;
        }
        let Ok(_place) = app.limits.account(principal).place_among(&app.held) else {
            return Err(errors::overloaded("too many appends are held already"));
        };
        while is_away(&last) && Instant::now() < until {
            let again = async {
                in_time(Some(until), caller::under(&self.lease, paused())).await?;
                read().await
            };
            last = match app.drain.run_until_begun(again).await {
                Some(read) => read,
                None => return Err(errors::unavailable("the server is shutting down")),
            };
        }
        last
    }

    /// How its events are to be stored.
    #[must_use]
    pub fn options(&self, app: &App) -> AppendOptions {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        AppendOptions {
            sequence: None,
            wait: self.until.map(left),
            leave: Some(leave(app, Arc::clone(&self.lease), self.until.is_some())),
            request: None,
        }
    }

    /// Tells whoever may write no more so, rather than that nothing was stored.
    ///
    /// # Errors
    /// 401, and what there was.
    pub fn settle(&self, stored: Result<Vec<Appended>, Problem>) -> Result<Vec<Appended>, Problem> {
        if stored.is_err() {
            caller::check(&self.lease)?;
        }
        stored
    }
}

/// The outcome, or 503 when the time is over.
async fn in_time<T>(
    until: Option<Instant>,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let Some(until) = until else {
        return work.await;
    };
    let done = tokio::time::timeout_at(until.into(), work).await;
    done.unwrap_or_else(|_| Err(errors::unavailable("the database did not answer in time")))
}

async fn paused() -> Result<(), Problem> {
    pause(PAUSE).await;
    Ok(())
}

/// Asks whether what waits under this lease may still be written. What is held may do so for so long that nobody may have heard
/// of a revocation.
pub fn leave(app: &App, lease: Arc<Lease>, is_held: bool) -> Leave {
    let (access, began) = (app.access.clone(), Instant::now());
    Leave::new(move || {
        if lease.check().is_err() {
            May::No
        } else if is_held && began.elapsed() > FRESH && access.registry().looked_before() > FRESH {
            May::NotYet
        } else {
            May::Yes
        }
    })
}
