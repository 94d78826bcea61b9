//! `Prefer` (RFC 7240): what a client would like.
//!
//! # Invariants
//! - A preference is never an error: one that is not known, or not readable, is passed over. The first of its name counts.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::HeaderName;

use crate::event::limits::APPEND_WAIT_MAX;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a writer would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preferences {
    /// `return=minimal`: no more of an answer than needed.
    pub is_minimal: bool,
    /// `wait=<seconds>`: hold what cannot be stored at once for so long, at most [`APPEND_WAIT_MAX`].
    pub wait: Option<Duration>,
}

impl Preferences {
    /// Those of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(PREFER).into_iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let mut found = Self::default();
        let (mut has_return, mut has_wait) = (false, false);
        for preference in texts.flat_map(|text| text.split(',')) {
            // What follows a semicolon are parameters of the preference.
            let named = preference.split(';').next().unwrap_or_default();
            let (name, value) = named.split_once('=').unwrap_or((named, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "return" if !has_return => {
                    has_return = true;
                    found.is_minimal = value.eq_ignore_ascii_case("minimal");
                }
                "wait" if !has_wait => {
                    has_wait = true;
                    let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                    let wait = seconds.map(Duration::from_secs);
                    found.wait = wait.map(|wait| wait.min(APPEND_WAIT_MAX));
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> (bool, Option<u64>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        let found = Preferences::of(&headers);
        (found.is_minimal, found.wait.map(|wait| wait.as_secs()))
    }

    #[test]
    fn what_is_known_counts_once_and_the_rest_is_passed_over() {
        assert_eq!(of(&[]), (false, None));
        assert_eq!(
            of(&["respond-async, wait=10;x=y , RETURN=minimal"]),
            (true, Some(10))
        );
        assert_eq!(of(&["wait=\"20\""]), (false, Some(20)));
        assert_eq!(
            of(&["wait=7", "wait=9, return=representation, return=minimal"]),
            (false, Some(7))
        );
        assert_eq!(of(&["wait=100000"]), (false, Some(60)));
        for odd in [
            "wait",
            "wait=",
            "wait=0",
            "wait=-1",
            "wait=1.5",
            "wait=soon",
            "=,;=",
        ] {
            assert_eq!(of(&[odd]), (false, None), "{odd}");
        }
    }
}
