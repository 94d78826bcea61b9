//! A few permits for many: tenants take turns, and within a tenant who came first is first.
//!
//! # Invariants
//! - However many of one tenant wait, another's first waits for no more than one of each tenant.
//! - Who gives up holds up nobody; a permit that nobody takes goes to the next.
//! - Where it is bounded ([`Fair::acquire_soon`]) so many of a tenant wait at most, and each for so long.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::event::Tenant;

/// See the module.
#[derive(Debug)]
pub struct Fair(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Those of whom somebody waits, each once.
    turns: VecDeque<Tenant>,
    waiting: HashMap<Tenant, VecDeque<oneshot::Sender<Permit>>>,
}

/// A permit, or where it will come.
enum Coming {
    Now(Permit),
    Later(oneshot::Receiver<Permit>),
}

/// One of the permits; given back when dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<Fair>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(fair) = self.0.take() {
            fair.pass_on();
        }
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPermit {
    /// As many of the tenant wait already as may.
    Crowded,
    /// None has become free in time.
    Late,
}

impl Fair {
    /// So many permits.
    #[must_use]
    pub fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: permits,
            turns: VecDeque::new(),
            waiting: HashMap::new(),
        })))
    }

    /// Waits for a permit, as long as it takes.
    pub async fn acquire(self: &Arc<Self>, tenant: &Tenant) -> Option<Permit> {
        // It is never closed: whoever is in the turns is served.
        match self.permit_or_turn(tenant, usize::MAX).ok()? {
            Coming::Now(permit) => Some(permit),
            Coming::Later(coming) => coming.await.ok(),
        }
    }

    /// Waits for a permit, with at most `waiting_max` of the tenant and for at most `patience`.
    ///
    /// # Errors
    /// If there is none for it, at once or in the end.
    pub async fn acquire_soon(
        self: &Arc<Self>,
        tenant: &Tenant,
        waiting_max: usize,
        patience: Duration,
    ) -> Result<Permit, NoPermit> {
        match self.permit_or_turn(tenant, waiting_max)? {
            Coming::Now(permit) => Ok(permit),
            Coming::Later(coming) => match tokio::time::timeout(patience, coming).await {
                Ok(Ok(permit)) => Ok(permit),
                Ok(Err(_)) | Err(_) => Err(NoPermit::Late),
            },
        }
    }

    /// So many wait for a permit.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.waiting.values().map(VecDeque::len).sum()
    }

    fn permit_or_turn(
        self: &Arc<Self>,
        tenant: &Tenant,
        waiting_max: usize,
    ) -> Result<Coming, NoPermit> {
        let mut state = self.state();
        if state.free > 0 {
            state.free = state.free.saturating_sub(1);
            return Ok(Coming::Now(Permit(Some(Arc::clone(self)))));
        }
        if let Some(waiting) = state.waiting.get_mut(tenant)
            && waiting.len() >= waiting_max
        {
            waiting.retain(|other| !other.is_closed());
            if waiting.len() >= waiting_max {
                return Err(NoPermit::Crowded);
            }
        }
        let (sender, coming) = oneshot::channel();
        if !state.waiting.contains_key(tenant) {
            state.turns.push_back(tenant.clone());
        }
        let waiting = state.waiting.entry(tenant.clone()).or_default();
        // Who gave up is not kept for ever, should nothing become free.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|other| !other.is_closed());
        }
        waiting.push_back(sender);
        Ok(Coming::Later(coming))
    }

    /// Gives a permit to whoever is next.
    fn pass_on(self: &Arc<Self>) {
        let mut permit = Permit(Some(Arc::clone(self)));
        loop {
            let Some(next) = self.state().next() else {
                // Nobody, and nobody can have come since: both happen under the lock.
                permit.0 = None;
                return;
            };
            match next.send(permit) {
                Ok(()) => return,
                Err(back) => permit = back,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whoever is next; if there is nobody the permit is free.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        while let Some(tenant) = self.turns.pop_front() {
            let Some(waiting) = self.waiting.get_mut(&tenant) else {
                continue;
            };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&tenant);
            } else {
                self.turns.push_back(tenant);
            }
            if next.is_some() {
                return next;
            }
        }
        self.free = self.free.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[tokio::test]
    async fn one_tenants_crowd_does_not_keep_another_waiting() {
        let fair = Fair::new(1);
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        let held = fair.acquire(&loud).await.unwrap();
        let mut crowd: Vec<_> = (0..1_000).map(|_| Box::pin(fair.acquire(&loud))).collect();
        for one in &mut crowd {
            assert!(one.now_or_never().is_none());
        }
        let mut other = Box::pin(fair.acquire(&quiet));
        assert!((&mut other).now_or_never().is_none());
        drop(held);
        drop(crowd.remove(0).await);
        assert!(
            other.now_or_never().flatten().is_some(),
            "after one of the crowd"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_of_a_tenant_wait_and_each_for_so_long() {
        let fair = Fair::new(1);
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        let held = fair.acquire(&loud).await.unwrap();
        let patience = Duration::from_secs(10);
        let wait = |tenant| Box::pin(fair.acquire_soon(tenant, 2, patience));
        let (mut first, mut second) = (wait(&loud), wait(&loud));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(wait(&loud).await.unwrap_err(), NoPermit::Crowded);
        let mut other = wait(&quiet);
        assert!((&mut other).now_or_never().is_none(), "it may wait");
        // Whose place was given up is somebody's again.
        drop(second);
        let mut third = wait(&loud);
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(first.await.unwrap_err(), NoPermit::Late);
        drop(held);
        assert!(other.await.is_ok() && third.await.is_ok());
        assert_eq!(fair.state().free, 1);
    }

    #[tokio::test]
    async fn no_permit_is_lost_with_those_who_give_up() {
        let fair = Fair::new(2);
        let name = tenant("a");
        let held = [fair.acquire(&name).await, fair.acquire(&name).await];
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(fair.acquire(&name))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        let given_to = waiting.remove(0);
        drop(held);
        // The first was given one, the second another; neither has looked.
        drop(given_to);
        drop(waiting);
        assert_eq!(fair.state().free, 2);
        assert!(fair.state().waiting.is_empty());
    }
}
