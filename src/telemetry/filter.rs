//! Which lines are written, and how an operator sees more of them for a while.
//!
//! # Invariants
//! - Whatever is asked for, what the talkative say below `info` is never written: it holds what passes through them.
//! - What was asked for ends by itself; the setting of the start comes back.

use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::EnvFilter;

/// What these say below `info` holds what passes through them: frames with credentials and data, parameters of
/// statements, headers.
const TALKATIVE: [&str; 4] = ["tungstenite", "tokio_tungstenite", "tokio_postgres", "h2"];

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 1_000;

/// The filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// It does not parse.
    #[error("not a log filter ({0}): write info, debug, or tidewire::log=debug")]
    Malformed(#[from] tracing_subscriber::filter::ParseError),
    /// It chooses by spans and their fields, or is longer than a filter need be.
    #[error(
        "a log filter names modules and levels alone, in {FILTER_BYTES_MAX} bytes: write info, debug, or tidewire::log=debug"
    )]
    Beyond,
}

/// Reads a filter.
///
/// # Errors
/// If it is none.
pub(super) fn parse(text: &str) -> Result<EnvFilter, BadFilter> {
    // A filter by spans lets through all that is said within them, by whomever.
    if text.len() > FILTER_BYTES_MAX || text.contains(['[', '{']) {
        return Err(BadFilter::Beyond);
    }
    Ok(EnvFilter::builder().with_regex(false).parse(text)?)
}

/// Whether a line may be written at all.
pub(super) fn may_be_written(line: &Metadata<'_>) -> bool {
    let is_of = |name: &&str| {
        let rest = line.target().strip_prefix(*name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    *line.level() <= Level::INFO || !TALKATIVE.iter().any(is_of)
}

/// Puts a filter in force.
type Install = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The filter in force. Clones are one.
#[derive(Clone)]
pub struct LogFilter(Arc<Inner>);

struct Inner {
    install: Install,
    configured: String,
    asked: Mutex<Option<Asked>>,
}

/// What somebody has asked for.
#[derive(Debug, Clone)]
struct Asked {
    filter: String,
    until: Instant,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The filter.
    pub filter: String,
    /// That of the start.
    pub configured: String,
    /// How long it is in force yet; none: it is that of the start.
    pub left: Option<Duration>,
}

impl Debug for LogFilter {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("LogFilter")
            .field(&self.in_force())
            .finish()
    }
}

impl Default for LogFilter {
    /// Of a program that writes no log: what is asked for is remembered, and changes nothing.
    fn default() -> Self {
        Self::new("info", Box::new(|_| {}))
    }
}

impl LogFilter {
    pub(super) fn new(configured: &str, install: Install) -> Self {
        Self(Arc::new(Inner {
            install,
            configured: configured.to_owned(),
            asked: Mutex::default(),
        }))
    }

    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let configured = self.0.configured.clone();
        InForce {
            filter: asked
                .as_ref()
                .map_or_else(|| configured.clone(), |asked| asked.filter.clone()),
            configured,
            left: asked
                .as_ref()
                .map(|asked| asked.until.saturating_duration_since(Instant::now())),
        }
    }

    /// Puts a filter in force, for as long as this.
    ///
    /// # Errors
    /// If it is none.
    pub fn set(&self, filter: &str, for_: Duration) -> Result<(), BadFilter> {
        let parsed = parse(filter)?;
        let now = Instant::now();
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(Asked {
            filter: filter.to_owned(),
            until: now.checked_add(for_).unwrap_or(now),
        });
        (self.0.install)(parsed);
        Ok(())
    }

    /// Brings that of the start back, if it is time. Whether it was.
    #[must_use]
    pub fn expire(&self, now: Instant) -> bool {
        let mut asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = asked.as_ref().is_some_and(|asked| asked.until <= now);
        if is_over {
            *asked = None;
            if let Ok(configured) = parse(&self.0.configured) {
                (self.0.install)(configured);
            }
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_ends_and_the_setting_comes_back() {
        let installed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&installed);
        let install = move |filter: EnvFilter| seen.lock().unwrap().push(filter.to_string());
        let filter = LogFilter::new("warn", Box::new(install));
        filter
            .set("tidewire::log=debug", Duration::from_mins(1))
            .unwrap();
        filter.set("error", Duration::from_mins(2)).unwrap();
        assert_eq!(filter.in_force().filter, "error");
        let in_a_moment = Instant::now() + Duration::from_secs(90);
        assert!(!filter.expire(in_a_moment), "the last one counts");
        assert!(filter.expire(in_a_moment + Duration::from_mins(1)));
        assert!(!filter.expire(in_a_moment + Duration::from_mins(1)));
        let in_force = filter.in_force();
        assert_eq!((in_force.filter.as_str(), in_force.left), ("warn", None));
        let installed = installed.lock().unwrap();
        assert_eq!(*installed, ["tidewire::log=debug", "error", "warn"]);
    }

    #[test]
    fn what_is_no_filter_changes_nothing() {
        let filter = LogFilter::default();
        for text in [
            "tidewire=loud",
            "[request]=trace",
            "a[b{c=d}]=info",
            &"a,".repeat(600),
        ] {
            assert!(filter.set(text, Duration::from_mins(1)).is_err(), "{text}");
        }
        assert_eq!(filter.in_force().left, None);
    }
}
