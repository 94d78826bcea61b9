//! Places of which there are so many: open connections, subscriptions.
//!
//! # Invariants
//! - A place that is taken is given back when it is dropped; who holds none is not remembered.
//! - One tenant cannot have all: see [`share_of`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::{Key, Keys};
use crate::event::limits::share_of;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Full,
    /// The tenant holds its share of what there is, or as many as it may.
    Tenant,
    /// The credential holds as many as it may.
    Credential,
}

/// See the module. Clones share the places.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    of_tenant: usize,
    of_credential: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_key: HashMap<Key, usize>,
}

impl Taken {
    fn of(&self, key: Key) -> usize {
        self.by_key.get(&key).copied().unwrap_or(0)
    }

    fn add(&mut self, key: Key) {
        let held = self.by_key.entry(key).or_default();
        *held = held.saturating_add(1);
    }

    fn give_back(&mut self, key: Key) {
        let left = self.of(key).saturating_sub(1);
        if left == 0 {
            self.by_key.remove(&key);
        } else {
            self.by_key.insert(key, left);
        }
        // What a storm has needed is not kept for ever.
        if self.by_key.capacity() > 1_024 && self.by_key.len() < self.by_key.capacity() / 8 {
            self.by_key.shrink_to_fit();
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    keys: Keys,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        taken.give_back(self.keys.tenant);
        taken.give_back(self.keys.credential);
    }
}

impl Place {
    /// Counts as another credential's of the same tenant from now on: neither the tenant's count nor the total changes, so
    /// that alone is asked for of which there is one more.
    ///
    /// # Errors
    /// If the other credential has reached its bound; then nothing has changed.
    fn move_to(&mut self, keys: Keys) -> Result<(), NoPlace> {
        debug_assert_eq!(keys.tenant, self.keys.tenant, "a place stays its tenant's");
        let (from, to) = (self.keys.credential, keys.credential);
        if from == to {
            return Ok(());
        }
        let mut taken = self.places.taken();
        if taken.of(to) >= self.places.0.of_credential {
            return Err(NoPlace::Credential);
        }
        taken.give_back(from);
        taken.add(to);
        drop(taken);
        self.keys.credential = to;
        Ok(())
    }
}

impl super::Account {
    /// A place of the caller's.
    ///
    /// # Errors
    /// Whose bound has been reached.
    pub fn place_among(&self, places: &Places) -> Result<Place, NoPlace> {
        places.take(self.keys)
    }

    /// Counts a place of the same tenant as this caller's.
    ///
    /// # Errors
    /// [`NoPlace::Credential`] if the caller has as many as it may.
    pub fn take_over(&self, place: &mut Place) -> Result<(), NoPlace> {
        place.move_to(self.keys)
    }
}

impl Places {
    /// So many in total, and of one tenant or credential at most, if that is bounded.
    #[must_use]
    pub fn new(total: usize, of_tenant: Option<usize>, of_credential: Option<usize>) -> Self {
        Self(Arc::new(Inner {
            total,
            of_tenant: of_tenant.unwrap_or(usize::MAX),
            of_credential: of_credential.unwrap_or(usize::MAX),
            taken: Mutex::default(),
        }))
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Whose bound has been reached.
    pub fn take(&self, keys: Keys) -> Result<Place, NoPlace> {
        let mut taken = self.taken();
        let free = self.0.total.saturating_sub(taken.all);
        let of_tenant = taken.of(keys.tenant);
        if taken.of(keys.credential) >= self.0.of_credential {
            return Err(NoPlace::Credential);
        }
        if of_tenant >= self.0.of_tenant {
            return Err(NoPlace::Tenant);
        }
        if free == 0 {
            return Err(NoPlace::Full);
        }
        if of_tenant >= share_of(free) {
            return Err(NoPlace::Tenant);
        }
        taken.all = taken.all.saturating_add(1);
        taken.add(keys.tenant);
        taken.add(keys.credential);
        drop(taken);
        Ok(Place {
            places: self.clone(),
            keys,
        })
    }

    /// Places that are taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(tenant: u64, credential: u64) -> Keys {
        Keys {
            tenant: Key::for_test(tenant),
            credential: Key::for_test(1_000_000 + credential),
        }
    }

    #[test]
    fn a_tenant_leaves_places_for_others_and_all_are_given_back() {
        let places = Places::new(100, None, None);
        let mut held = Vec::new();
        while let Ok(place) = places.take(keys(1, 1)) {
            held.push(place);
        }
        assert_eq!(held.len(), 75);
        while let Ok(place) = places.take(keys(2, 2)) {
            held.push(place);
        }
        assert!(places.count() < 100, "and for a third");
        assert_eq!(places.take(keys(1, 3)).unwrap_err(), NoPlace::Tenant);
        held.push(places.take(keys(3, 3)).unwrap());
        held.clear();
        assert_eq!((places.count(), places.taken().by_key.len()), (0, 0));
    }

    #[test]
    fn bounds_of_a_tenant_and_of_a_credential_are_apart() {
        let places = Places::new(100, Some(3), Some(2));
        let _one = places.take(keys(1, 1)).unwrap();
        let _two = places.take(keys(1, 1)).unwrap();
        assert_eq!(places.take(keys(1, 1)).unwrap_err(), NoPlace::Credential);
        let _three = places.take(keys(1, 2)).unwrap();
        assert_eq!(places.take(keys(1, 2)).unwrap_err(), NoPlace::Tenant);
        let _other = places.take(keys(2, 3)).unwrap();
    }

    #[test]
    fn a_place_that_moves_is_counted_once() {
        let places = Places::new(2, Some(2), Some(1));
        let mut one = places.take(keys(1, 1)).unwrap();
        let two = places.take(keys(1, 2)).unwrap();
        assert_eq!(one.move_to(keys(1, 2)), Err(NoPlace::Credential));
        one.move_to(keys(1, 1)).unwrap();
        one.move_to(keys(1, 3)).unwrap();
        assert_eq!(places.count(), 2);
        let held = |credential| places.taken().of(keys(1, credential).credential);
        assert_eq!([held(1), held(2), held(3)], [0, 1, 1]);
        assert_eq!(places.taken().of(keys(1, 1).tenant), 2);
        drop((one, two));
        assert_eq!((places.count(), places.taken().by_key.len()), (0, 0));
    }

    #[test]
    fn few_places_are_for_whoever_comes() {
        for total in 0..=3 {
            let places = Places::new(total, None, None);
            let held: Vec<_> = (0..total)
                .map(|_| places.take(keys(1, 1)).unwrap())
                .collect();
            assert_eq!(places.take(keys(2, 2)).unwrap_err(), NoPlace::Full);
            drop(held);
        }
    }
}
