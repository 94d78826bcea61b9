//! When API keys were used, until it is written.
//!
//! # Invariants
//! - A place a key: however often it is used, it is written once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, Utc};

use super::api_key::KeyId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<KeyId, DateTime<Utc>>>);

impl Uses {
    /// The key is used now.
    pub(super) fn note(&self, id: &KeyId) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert(id.clone(), SystemTime::now().into());
    }

    /// All that is not written.
    pub(super) fn take(&self) -> HashMap<KeyId, DateTime<Utc>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What could not be written; what was noted since then is later.
    pub(super) fn put_back(&self, uses: HashMap<KeyId, DateTime<Utc>>) {
        let mut later = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, at) in uses {
            later.entry(id).or_insert(at);
        }
    }
}
