//! Ids counted and summed up, so that two parties can compare many events by a few bytes.
//!
//! # Invariants
//! - The order makes no difference; how often each id comes does.
//! - Sums of parts add up to the sum of the whole.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The sum, modulo 2¹²⁸, of the first 16 bytes of each id's SHA-256, big end first; as text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdsDigest {
    /// How many.
    pub count: u64,
    sum: u128,
}

impl IdsDigest {
    /// Adds one id.
    pub fn add(&mut self, id: &str) {
        let hash = Sha256::digest(id.as_bytes());
        let first = hash.first_chunk().copied().unwrap_or_default();
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
        self.count = self.count.saturating_add(1);
    }

    /// Adds all of another.
    pub const fn merge(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count = self.count.saturating_add(other.count);
    }
}

impl fmt::Display for IdsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[&str]) -> IdsDigest {
        let mut digest = IdsDigest::default();
        for id in ids {
            digest.add(id);
        }
        digest
    }

    #[test]
    fn order_does_not_count_and_number_does() {
        assert_eq!(of(&["a", "b", "c"]), of(&["c", "a", "b"]));
        assert_ne!(of(&["a", "a"]).to_string(), of(&["b", "b"]).to_string());
        assert_ne!(of(&["a", "a", "b"]).to_string(), of(&["b"]).to_string());
        let mut parts = of(&["a"]);
        parts.merge(&of(&["b", "c"]));
        assert_eq!(parts, of(&["a", "b", "c"]));
        // printf a | sha256sum
        assert_eq!(of(&["a"]).to_string(), "ca978112ca1bbdcafac231b39a23dc4d");
        assert_eq!(IdsDigest::default().to_string(), "0".repeat(32));
    }
}
