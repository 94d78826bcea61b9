//! A place for what takes long to compute: checks of events against schemas, schemas to be made ready.
//!
//! # Invariants
//! - Not on the threads that serve. A few at a time; tenants take turns, a slice of work each: however much one has to be
//!   checked, another's first waits for no more than one slice of each tenant.
//! - What has begun goes on to its end, and keeps its place until then, whoever has given up waiting for it.

use std::sync::Arc;
use std::thread::available_parallelism;

use super::credentials;
use super::errors;
use super::problem::Problem;
use crate::access::LedgerError;
use crate::event::Tenant;
use crate::event::limits::{ADMINISTRATION_TURN_MAX, ADMINISTRATION_WAITING_MAX};
use crate::fair::{Fair, NoPermit, Permit};
use crate::tasks::compute;

/// See the module.
#[derive(Debug)]
pub struct Checks(Arc<Fair>);

impl Default for Checks {
    /// A place for every second processor.
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self(Fair::new(processors.div_ceil(2)))
    }
}

impl Checks {
    /// Does one slice of a tenant's work when it is the tenant's turn.
    ///
    /// # Errors
    /// 500 if it has panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        Self::compute(self.0.acquire(tenant).await, work).await
    }

    /// Does an administrator's work when it is the tenant's turn: few wait at once, and not for long.
    ///
    /// # Errors
    /// As [`Checks::run`], and 429 or 503 if there is no turn for it.
    pub async fn run_soon<T: Send + 'static>(
        &self,
        tenant: &Tenant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let waiting_max = ADMINISTRATION_WAITING_MAX;
        let turn = self
            .0
            .acquire_soon(tenant, waiting_max, ADMINISTRATION_TURN_MAX)
            .await;
        let turn = turn.map_err(|why| match why {
            NoPermit::Crowded => credentials::problem(LedgerError::Crowded),
            NoPermit::Late => errors::overloaded("too much is being checked at once"),
        })?;
        Self::compute(Some(turn), work).await
    }

    async fn compute<T: Send + 'static>(
        turn: Option<Permit>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        let done = compute(work).await;
        done.ok_or_else(|| errors::internal("a check has not come to its end"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    /// On one thread: what is checked there would keep everything else from going on.
    #[tokio::test]
    async fn one_tenants_checks_keep_neither_the_thread_nor_another_tenant() {
        let checks = Checks(Fair::new(1));
        let [loud, quiet] = ["loud", "quiet"].map(|name| Tenant::parse(name).unwrap());
        let (go, gate) = mpsc::channel::<()>();
        let mut first = Box::pin(checks.run(&loud, move || gate.recv()));
        assert!((&mut first).now_or_never().is_none());
        let mut crowd: Vec<_> = (0..100)
            .map(|_| {
                let (go, gate) = mpsc::channel::<()>();
                (Box::pin(checks.run(&loud, move || gate.recv())), go)
            })
            .collect();
        for (one, _) in &mut crowd {
            assert!(one.now_or_never().is_none());
        }
        let mut other = Box::pin(checks.run(&quiet, || 7));
        assert!((&mut other).now_or_never().is_none());
        // Given up, but under way: its place is not another's yet.
        drop(first);
        tokio::task::yield_now().await;
        assert!((&mut other).now_or_never().is_none());
        go.send(()).unwrap();
        let (next, gate) = crowd.remove(0);
        gate.send(()).unwrap();
        let (_, seven) = tokio::join!(next, other);
        assert_eq!(seven.unwrap(), 7, "after one of the crowd");
        for (_, gate) in &crowd {
            let _ = gate.send(());
        }
    }
}
