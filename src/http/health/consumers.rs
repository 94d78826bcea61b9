//! What is the matter with consumers: somebody has paused one, or it does not get on.

use std::time::Duration;

use super::super::app::App;
use super::{Issue, Observed, issue};

/// Places that a consumer may be behind what readers have.
const BEHIND_EVENTS: i64 = 10_000;
/// A step takes seconds at most, and another server's end is noticed within ten.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// How a consumer stands.
#[derive(Debug, Clone, Copy)]
struct Seen {
    name: &'static str,
    is_paused: bool,
    /// Places before it, if it runs here, apart from those that an open transaction holds back.
    behind: Option<i64>,
    /// Since it took a step here, or was seen to be another server's.
    silent: Duration,
}

/// All that is the matter. Of a database that does not answer something else is said.
pub(super) fn issues(app: &App, observed: &Observed) -> Vec<Issue> {
    if observed.database.is_none() {
        return Vec::new();
    }
    let watermark = app.hub.tail().watermark;
    let held = watermark.newest.saturating_sub(watermark.safe);
    let seen = app.consumers.iter().map(|standing| Seen {
        name: standing.name(),
        is_paused: standing.is_paused(),
        behind: standing.lag_events().map(|lag| lag.saturating_sub(held)),
        silent: standing.silent_for(),
    });
    seen.filter_map(of).collect()
}

fn of(seen: Seen) -> Option<Issue> {
    let name = seen.name;
    if seen.silent > SILENT_MAX {
        let silent_s = seen.silent.as_secs();
        return Some(issue(
            "consumer-behind",
            10,
            format!(
                "the consumer {name} has taken no step here for {silent_s} s, and no other server was seen to run it"
            ),
            "see the server's log for why it is interrupted, and pg_locks for who is before its session: a transaction that changes watches or erases somebody keeps it from looking until it ends",
        ));
    }
    if seen.is_paused {
        let before = seen.behind.filter(|behind| *behind > 0);
        let before = before.map_or_else(String::new, |n| format!(", and {n} places lie before it"));
        return Some(issue(
            "consumer-paused",
            10,
            format!("the consumer {name} is paused: it takes no step on any server{before}"),
            "tidewire.consumers.paused_by says who did it; when the reason is gone: tidewire admin consumer resume <name>",
        ));
    }
    let behind = seen.behind.filter(|behind| *behind > BEHIND_EVENTS)?;
    Some(issue(
        "consumer-behind",
        10,
        format!("{behind} places lie before the consumer {name}"),
        "after a pause or an outage this passes; else the database is too slow to be read: pg_stat_activity, tidewire_consumer_lag_events",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Seen = Seen {
        name: "watch",
        is_paused: false,
        behind: Some(0),
        silent: Duration::ZERO,
    };

    #[test]
    fn each_cause_has_its_name() {
        let code = |seen| of(seen).map(|issue| issue.code);
        assert_eq!(code(WELL), None);
        let behind = |behind| Seen { behind, ..WELL };
        assert_eq!(code(behind(None)), None);
        assert_eq!(code(behind(Some(BEHIND_EVENTS))), None);
        let late = of(behind(Some(BEHIND_EVENTS + 1))).unwrap();
        assert_eq!(late.code, "consumer-behind");
        assert!(late.cause.contains("10001") && late.cause.contains("watch"));
        let is_paused = true;
        assert_eq!(code(Seen { is_paused, ..WELL }), Some("consumer-paused"));
        let silent = SILENT_MAX + Duration::from_secs(1);
        let silent = of(Seen { silent, ..WELL }).unwrap();
        assert_eq!(silent.code, "consumer-behind");
        assert!(silent.cause.contains("16 s"), "{silent:?}");
    }
}
