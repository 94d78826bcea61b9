//! Settings of tenants that are remembered.
//!
//! # Invariants
//! - Who asks gets what is as new as the last change that was announced before it asked. A change of one tenant makes nobody
//!   read another's settings.
//! - However many ask for a tenant's settings while it changes them, one read is under way and one more waits: whoever asks
//!   joins a read that has not begun, whatever was announced.
//! - What all of it weighs is bounded: what was asked for least recently is read again when it is asked for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use uuid::Uuid;

use super::settings::{Declared, Settings};
use crate::event::Tenant;
use crate::event::limits::SETTINGS_BYTES_MAX;

/// What a tenant without schemas weighs, in bytes.
const WEIGHT_MIN: u32 = 2_048;

/// Which change of a tenant's settings was the last; none: there was none that was marked.
pub type Mark = Option<Uuid>;

/// Settings as they were read.
#[derive(Debug, Clone)]
pub struct Known {
    /// None: what stands in the database cannot be read.
    pub settings: Option<Arc<Settings>>,
    /// The change at which they were read, or an older one.
    pub change: Mark,
    /// What was declared in which version of which row, so that a row that has not changed is not read again.
    pub rows: HashMap<String, Declared>,
    /// On which connection: another may lead to another database, whose rows have the same names.
    pub connection: u64,
}

impl Known {
    /// Bytes, for the bound.
    fn weight(&self) -> u32 {
        let schemas = self.rows.values().filter_map(|one| one.schema.as_ref());
        let schemas = schemas.fold(0_usize, |sum, one| sum.saturating_add(one.weight()));
        let rows = self.rows.len().saturating_mul(512);
        let weight = u32::try_from(schemas.saturating_add(rows)).unwrap_or(u32::MAX);
        weight.saturating_add(WEIGHT_MIN)
    }
}

/// They could not be read now. The reason was logged once, by whoever read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

/// What is answered to all who wait for it.
pub type Answer = Result<Arc<Known>, Unread>;
type Read = BoxFuture<'static, Answer>;

/// A read, for all who wait for it.
#[derive(Debug)]
struct Reading {
    /// Changes that had been announced when it began; until then as many as there can be.
    as_of: Arc<AtomicU64>,
    answer: Shared<Read>,
}

impl Reading {
    fn known(&self) -> Option<&Arc<Known>> {
        self.answer.peek().and_then(|answer| answer.as_ref().ok())
    }

    /// Whether there is something to wait for, or an answer.
    fn is_of_use(&self) -> bool {
        match self.answer.peek() {
            Some(answer) => answer.is_ok(),
            // Who waited for it has gone: it has stood still, nobody knows for how long.
            None => self.answer.strong_count().is_some_and(|count| count > 1),
        }
    }
}

/// What is remembered of a tenant.
#[derive(Debug)]
struct Slot {
    /// Changes that were announced since it is here.
    changes: Arc<AtomicU64>,
    reading: Mutex<Option<Reading>>,
    /// What was read last. Whoever reads holds it: one at a time.
    last: Arc<tokio::sync::Mutex<Option<Arc<Known>>>>,
    weight: AtomicU32,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            changes: Arc::default(),
            reading: Mutex::default(),
            last: Arc::default(),
            weight: AtomicU32::new(WEIGHT_MIN),
        }
    }
}

impl Slot {
    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that is new enough for whoever asks now.
    fn ask<F>(&self, read: impl FnOnce(Option<Arc<Known>>) -> F + Send + 'static) -> Shared<Read>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut reading = self.reading();
        let wanted = self.changes.load(Ordering::SeqCst);
        let is_new = |one: &&Reading| one.as_of.load(Ordering::SeqCst) >= wanted && one.is_of_use();
        if let Some(current) = reading.as_ref().filter(is_new) {
            return current.answer.clone();
        }
        let as_of = Arc::new(AtomicU64::new(u64::MAX));
        let (last, changes) = (Arc::clone(&self.last), Arc::clone(&self.changes));
        let begun = Arc::clone(&as_of);
        let answer = async move {
            let mut last = last.lock_owned().await;
            // Before anything is asked: what is announced from now on may not be in the answer.
            begun.store(changes.load(Ordering::SeqCst), Ordering::SeqCst);
            let known = read(last.clone()).await?;
            *last = Some(Arc::clone(&known));
            Ok(known)
        };
        let answer = answer.boxed().shared();
        *reading = Some(Reading {
            as_of,
            answer: answer.clone(),
        });
        answer
    }

    /// There was this change. What has been read at it stays.
    fn announce(&self, change: Mark) {
        let reading = self.reading();
        let known = reading.as_ref().and_then(Reading::known);
        if known.is_none_or(|known| known.change != change) {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Remembered(Cache<Tenant, Arc<Slot>>);

impl Default for Remembered {
    fn default() -> Self {
        let cache = Cache::builder()
            .max_capacity(SETTINGS_BYTES_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, slot: &Arc<Slot>| slot.weight.load(Ordering::Relaxed));
        Self(cache.build())
    }
}

impl Remembered {
    /// The tenant's settings, remembered or read. Whoever reads is given what was read before.
    ///
    /// # Errors
    /// If they cannot be read now.
    pub async fn get<F>(
        &self,
        tenant: &Tenant,
        read: impl FnOnce(Option<Arc<Known>>) -> F + Send + 'static,
    ) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        // There before anything is read: what is announced meanwhile finds it.
        let slot = self.0.get_with_by_ref(tenant, async { Arc::default() });
        let slot: Arc<Slot> = slot.await;
        let answer = slot.ask(read);
        if let Some(answer) = answer.peek() {
            return answer.clone();
        }
        let known = answer.await?;
        let weight = known.weight();
        if slot.weight.swap(weight, Ordering::Relaxed) != weight {
            // Weighed again, if it is still there: one that was pushed out heard of no change.
            let weigh = |entry: Option<moka::Entry<Tenant, Arc<Slot>>>| {
                let is_there = entry.is_some_and(|entry| Arc::ptr_eq(entry.value(), &slot));
                std::future::ready(if is_there {
                    Op::Put(Arc::clone(&slot))
                } else {
                    Op::Nop
                })
            };
            self.0.entry_by_ref(tenant).and_compute_with(weigh).await;
        }
        Ok(known)
    }

    /// The tenant's settings have changed: what was read before this change is read again when it is asked for.
    pub async fn announce(&self, tenant: &Tenant, change: Mark) {
        if let Some(slot) = self.0.get(tenant).await {
            slot.announce(change);
        }
    }

    /// Those whose settings are remembered, or being read.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.0.iter().map(|(tenant, _)| (*tenant).clone()).collect()
    }
}

#[cfg(test)]
mod tests;
