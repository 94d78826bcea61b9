//! Each alert fires because of what it is for: a live server is brought into that condition, what it shows is scraped, and
//! Prometheus is asked. It is silent before, and silent again after.

use std::collections::{BTreeMap, BTreeSet};

use super::causes;
use super::scrapes::{Firing, Scrapes};
use super::{alerts, text};

/// The alert of each cause, and a test of each. A rule that has none here fails [`each_rule_has_a_cause`].
macro_rules! causes {
    ($($test:ident: $alert:literal $labels:expr, $cause:expr;)*) => {
        const CAUSES: &[&str] = &[$($alert),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let mut scrapes = Scrapes::new();
                let cause = $cause;
                cause(&mut scrapes).await;
                judge($alert, &$labels, &scrapes).await;
            }
        )*
    };
}

/// What part of the events of a priority is to be delivered within so many seconds.
const TARGETS: [(&str, &str, &str, f64); 4] = [
    ("SlowCritical", "critical", "0.05", 0.95),
    ("SlowHigh", "high", "0.05", 0.95),
    ("SlowNormal", "normal", "0.1", 0.99),
    ("SlowLow", "low", "0.5", 0.99),
];

const NONE: [(&str, &str); 0] = [];

causes! {
    a_killed_server: "TidewireDown" NONE, causes::killed;
    a_database_that_is_cut_off: "TailDown" NONE, causes::cut_off;
    a_database_that_fails_again_and_again: "BreakerOpen" NONE, causes::failing;
    a_writer_that_stays_open: "WatermarkHeld" NONE, causes::open_writer;
    many_events_behind_an_open_writer: "WatermarkLag" NONE, causes::held_back;
    more_than_can_be_stored: "AppendsShed" [("priority", "low")], causes::overloaded;
    writes_while_the_breaker_is_open: "AppendsUnavailable" [("priority", "normal")], causes::unavailable;
    a_slow_line_under_critical_events: "SlowCritical" NONE, async |scrapes| causes::slow(scrapes, "critical").await;
    a_slow_line_under_high_events: "SlowHigh" NONE, async |scrapes| causes::slow(scrapes, "high").await;
    a_slow_line_under_normal_events: "SlowNormal" NONE, async |scrapes| causes::slow(scrapes, "normal").await;
    a_slow_line_under_low_events: "SlowLow" NONE, async |scrapes| causes::slow(scrapes, "low").await;
    batches_that_find_no_connection: "RetriesHigh" NONE, causes::retried;
    a_listen_line_that_is_cut: "NotListening" [("mode", "polling")], causes::deaf;
    a_crowd_that_wants_history: "ReadersBehind" NONE, causes::crowd;
    reads_of_history_that_hang: "PoolExhausted" NONE, causes::hanging;
    sockets_up_to_the_share: "ConnectionsNearLimit" NONE, causes::many_sockets;
    readers_slower_than_the_writers: "WindowTooSmall" NONE, causes::outrun;
    sockets_that_take_nothing: "SessionsEvicted" NONE, causes::sessions::evicted;
    a_consumer_that_somebody_paused: "ConsumerPaused" [("consumer", "watch")], causes::consumers::paused;
    a_consumer_that_cannot_be_run: "ConsumerNotRun" [("consumer", "watch")], causes::consumers::not_run;
    a_consumer_before_which_much_lies: "ConsumerBehind" [("consumer", "watch")], causes::consumers::behind;
}

#[test]
fn each_rule_has_a_cause() {
    let rules = alerts();
    let rules: BTreeSet<&str> = rules.keys().map(String::as_str).collect();
    assert_eq!(rules, CAUSES.iter().copied().collect());
    assert_eq!(rules.len(), CAUSES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_server_under_load_fires_none() {
    let mut scrapes = Scrapes::new();
    causes::healthy(&mut scrapes).await;
    let phases = scrapes.firing(CAUSES).await;
    assert_eq!(phases.len(), 3);
    let of_phase =
        |(phase, firing): (usize, Vec<Firing>)| firing.into_iter().map(move |one| (phase, one));
    for (phase, firing) in phases.into_iter().enumerate().flat_map(of_phase) {
        let name = firing.labels["alertname"].as_str();
        // On a machine that has other things to do it is the truth.
        let target = TARGETS.iter().find(|(alert, ..)| *alert == name);
        let is_true = target.is_some_and(|(_, priority, within, part)| {
            causes::delivered_within(&scrapes, phase, priority, within) < *part
        });
        assert!(is_true, "{firing:?}");
        eprintln!("this machine is too busy to say that {name} is silent");
    }
}

async fn judge(alert: &str, labels: &[(&str, &str)], scrapes: &Scrapes) {
    let rules = alerts();
    let rule = &rules[alert];
    let firing = scrapes.firing(&[alert]).await;
    let [before, during, after] = &firing[..] else {
        panic!("{} phases", firing.len())
    };
    assert_eq!(before, &[], "before");
    assert_eq!(after, &[], "after");
    let [firing] = &during[..] else {
        panic!("not one {alert}: {during:?}")
    };
    let severity = text(&rule["labels"]["severity"]);
    let given = [
        ("alertname", alert),
        ("job", "tidewire"),
        ("severity", severity),
    ];
    // What holds of all servers alike is told of once.
    let is_of_all = text(&rule["expr"]).contains("without (instance)");
    let instance = (!is_of_all).then_some(("instance", "a"));
    let expected = given.iter().chain(&instance).chain(labels);
    let expected: BTreeMap<String, String> = expected
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    assert_eq!(firing.labels, expected);
    let templates = rule["annotations"].as_object().unwrap();
    assert_eq!(firing.annotations.len(), templates.len());
    for (name, template) in templates {
        assert_told(text(template), &firing.annotations[name]);
    }
}

/// What stands around the braces stands in what was told, in this order, and something stands for each of them.
fn assert_told(template: &str, told: &str) {
    let mut rest = told;
    for piece in template.split("{{") {
        let literal = piece.split_once("}}").map_or(piece, |(_, after)| after);
        let at = rest.find(literal);
        let at = at.unwrap_or_else(|| panic!("{literal:?} is missing: {told}"));
        rest = &rest[at + literal.len()..];
    }
    for empty in ["<no value>", "NaN", "{{", "  "] {
        assert!(!told.contains(empty), "{told}");
    }
}
