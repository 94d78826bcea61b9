//! What was to come, compared with what came: what is missing, came twice, is unknown or out of order.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::flaw::Flaw;

/// Ids that a text names at most.
const NAMED_MAX: usize = 5;

/// The difference. Ids are in the order in which they were expected or came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many were expected.
    pub expected: usize,
    /// How many came.
    pub received: usize,
    /// Expected, and did not come.
    pub missing: Vec<String>,
    /// Came more than once; named once.
    pub duplicated: Vec<String>,
    /// Came, and were not expected.
    pub unknown: Vec<String>,
    /// Came after one that they were expected before.
    pub misplaced: Vec<String>,
}

impl Tally {
    /// Compares ids; of expected ones each stands once.
    #[must_use]
    pub fn of<'a>(
        expected: impl IntoIterator<Item = &'a str>,
        received: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let expected: Vec<&str> = expected.into_iter().collect();
        let places: HashMap<&str, usize> = expected.iter().copied().zip(0..).collect();
        let mut tally = Self {
            expected: expected.len(),
            ..Self::default()
        };
        let (mut seen, mut named, mut furthest) = (HashSet::new(), HashSet::new(), 0);
        for id in received {
            tally.received = tally.received.saturating_add(1);
            let Some(place) = places.get(id) else {
                if named.insert(id) {
                    tally.unknown.push(id.to_owned());
                }
                continue;
            };
            if !seen.insert(id) {
                if named.insert(id) {
                    tally.duplicated.push(id.to_owned());
                }
                continue;
            }
            if *place < furthest {
                tally.misplaced.push(id.to_owned());
            }
            furthest = furthest.max(*place);
        }
        let missing = expected.iter().filter(|id| !seen.contains(**id));
        tally.missing = missing.map(|id| (*id).to_owned()).collect();
        tally
    }

    /// Whether everything came, once and in order, and nothing else.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.missing.is_empty()
            && self.duplicated.is_empty()
            && self.unknown.is_empty()
            && self.misplaced.is_empty()
    }

    /// The difference as a failure of `what`.
    ///
    /// # Errors
    /// If there is one.
    pub fn demand(&self, what: &str) -> Result<(), Flaw> {
        if self.is_whole() {
            return Ok(());
        }
        let parts = [
            ("missing", &self.missing),
            ("twice", &self.duplicated),
            ("unknown", &self.unknown),
            ("out of order", &self.misplaced),
        ];
        let parts = parts.into_iter().filter(|(_, ids)| !ids.is_empty());
        let parts = parts.map(|(name, ids)| {
            let few: Vec<_> = ids.iter().take(NAMED_MAX).map(String::as_str).collect();
            let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
            format!("{} {name} ({}{more})", ids.len(), few.join(", "))
        });
        Err(Flaw::failed(
            format!(
                "{what}: of {} events {} came: {}",
                self.expected,
                self.received,
                parts.collect::<Vec<_>>().join("; ")
            ),
            "Does a proxy in between cut, cache or repeat answers? Ask the server itself; if it is the server, keep its log and report this.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let tally = Tally::of(["a", "b", "c", "d"], ["a", "c", "b", "b", "b", "x", "x"]);
        assert_eq!(tally.missing, ["d"]);
        assert_eq!(tally.duplicated, ["b"]);
        assert_eq!(tally.unknown, ["x"]);
        assert_eq!(tally.misplaced, ["b"]);
        assert_eq!((tally.expected, tally.received), (4, 7));
        let Err(Flaw::Failed { cause, .. }) = tally.demand("pages") else {
            panic!("{tally:?}")
        };
        assert!(cause.contains("1 missing (d); 1 twice (b)"), "{cause}");
        assert!(Tally::of(["a", "b"], ["a", "b"]).is_whole());
    }
}
