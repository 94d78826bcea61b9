//! `/metrics` as it was scraped of a live server, twice a second, before, during and after what causes an alert; and what
//! Prometheus makes of it, with the rules as they are shipped.
//!
//! A phase goes on, after its last scrape, for as long as the rule's `for` and its ranges demand: a gauge stays as it was, a
//! counter goes on growing as fast as it did. Time is real up to there: half a second between two scrapes is that for Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior};

use super::{ask, named, text};
use crate::support::Api;

/// How long it may take until the cause shows.
const PATIENCE: u32 = 90;
/// So often a phase is scraped once it is as it should be.
const SETTLED: usize = 5;
/// How many scrapes each phase goes on. The last ones are longer than any range with any `for` of the rules.
const GOES_ON: [usize; 3] = [600, 7_400, 4_800];
/// From one scrape to the next.
const INTERVAL: Duration = Duration::from_millis(500);

/// Gauges that grow with time for as long as their cause lasts.
const GROWING: [&str; 1] = ["tidewire_watermark_held_seconds"];

/// One scrape: every series with its value.
pub type Scrape = BTreeMap<String, f64>;

/// See the module.
pub struct Scrapes {
    /// Before, during, after. `None` where the server could not be scraped.
    phases: Vec<Vec<Option<Scrape>>>,
    /// Which of them grow.
    counters: BTreeSet<String>,
    ticks: Interval,
}

/// An alert that fires.
#[derive(Debug, PartialEq, Eq)]
pub struct Firing {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Scrapes {
    /// None yet.
    pub fn new() -> Self {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            phases: Vec::new(),
            counters: BTreeSet::new(),
            ticks,
        }
    }

    /// The next phase: scrapes until it is so, and then some more.
    pub async fn phase(&mut self, api: &Api, is_so: impl Fn(Option<&Scrape>) -> bool) {
        let mut scrapes = Vec::new();
        for attempt in 0.. {
            let scrape = self.scrape(api).await;
            let is_so = is_so(scrape.as_ref());
            assert!(is_so || attempt < PATIENCE, "it does not show: {scrape:?}");
            scrapes.push(scrape);
            if is_so {
                break;
            }
        }
        for _ in 0..SETTLED {
            scrapes.push(self.scrape(api).await);
        }
        self.phases.push(scrapes);
    }

    /// How much a series grew in what a phase goes on with.
    pub fn growth(&self, phase: usize, series: &str) -> f64 {
        let settled = &self.phases[phase][self.phases[phase].len() - SETTLED..];
        let of = |scrape: &Option<Scrape>| scrape.as_ref().unwrap()[series];
        of(settled.last().unwrap()) - of(&settled[0])
    }

    async fn scrape(&mut self, api: &Api) -> Option<Scrape> {
        self.ticks.tick().await;
        let request = api.request(reqwest::Method::GET, "/metrics");
        let answer = request.timeout(Duration::from_secs(10)).send().await.ok()?;
        assert!(answer.status().is_success(), "{}", answer.status());
        let said = answer.text().await.ok()?;
        let mut scrape = Scrape::new();
        for line in said.lines() {
            if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').unwrap();
                match kind {
                    "counter" => drop(self.counters.insert(name.to_owned())),
                    "histogram" => {
                        let parts = ["bucket", "sum", "count"];
                        let parts = parts.map(|part| format!("{name}_{part}"));
                        self.counters.extend(parts);
                    }
                    _ => {}
                }
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                scrape.insert(series.to_owned(), value.parse().unwrap());
            }
        }
        Some(scrape)
    }

    /// Which of these alerts fire at the end of each phase.
    pub async fn firing(&self, alerts: &[&str]) -> Vec<Vec<Firing>> {
        let mut at = 0;
        let mut asked = Vec::new();
        for (phase, goes_on) in self.phases.iter().zip(GOES_ON) {
            at += phase.len() + goes_on;
            let time = format!("{}s", (at - 1) / 2);
            let ask = |alert| json!({"eval_time": time, "alertname": alert, "exp_alerts": []});
            asked.push(alerts.iter().map(ask).collect::<Vec<_>>());
        }
        let tests = json!({
            "rule_files": ["alerts.yml"], "evaluation_interval": "15s",
            "tests": [{"interval": "500ms", "input_series": self.input(alerts), "alert_rule_test": asked.concat()}],
        });
        let folder = tempfile::tempdir().unwrap();
        // JSON is YAML.
        std::fs::write(folder.path().join("live.yml"), tests.to_string()).unwrap();
        std::fs::write(folder.path().join("alerts.yml"), super::read(super::RULES)).unwrap();
        let (is_silent, said) = ask(folder.path(), &["test", "rules", "live.yml"]).await;
        let of = |asked: &Vec<Value>| {
            let time = format!("time: {}", short(text(&asked[0]["eval_time"])));
            let told = said.split("alertname: ");
            told.filter(|told| told.contains(&time))
                .flat_map(firing)
                .collect()
        };
        let all: Vec<Vec<Firing>> = asked.iter().map(of).collect();
        // Nothing that it said was passed over.
        let count = said.matches("Labels:{").count();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), count, "{said}");
        assert_eq!(is_silent, count == 0, "{said}");
        all
    }

    /// The series that the rules name, as promtool takes them.
    fn input(&self, alerts: &[&str]) -> Vec<Value> {
        let rules = super::alerts();
        let names = alerts
            .iter()
            .map(|alert| named(text(&rules[*alert]["expr"])));
        let names: BTreeSet<String> = names.flatten().collect();
        let scrapes = self.phases.iter().flatten().flatten();
        let all: BTreeSet<&String> = scrapes.flat_map(|scrape| scrape.keys()).collect();
        let name = |series: &str| series.split('{').next().unwrap().to_owned();
        let wanted = all.iter().filter(|series| names.contains(&name(series)));
        let mut input: Vec<Value> = wanted
            .map(|series| {
                let is_counter = self.counters.contains(&name(series));
                let grows = is_counter || GROWING.contains(&name(series).as_str());
                let value = |scrape: &Option<Scrape>| scrape.as_ref()?.get(*series).copied();
                one(series, &self.values(grows, value))
            })
            .collect();
        let found = input.len();
        assert!(
            found >= names.len(),
            "{names:?}: the server has not all of them"
        );
        let up = |scrape: &Option<Scrape>| Some(f64::from(u8::from(scrape.is_some())));
        input.push(one("up", &self.values(false, up)));
        input
    }

    fn values(&self, grows: bool, value: impl Fn(&Option<Scrape>) -> Option<f64>) -> String {
        let mut values = String::new();
        for (phase, goes_on) in self.phases.iter().zip(GOES_ON) {
            let seen: Vec<Option<f64>> = phase.iter().map(&value).collect();
            for value in &seen {
                match value {
                    Some(value) => write!(values, "{value} ").unwrap(),
                    None => values.push_str("_ "),
                }
            }
            let [first, .., last] = seen[seen.len() - SETTLED..] else {
                unreachable!()
            };
            match first.zip(last) {
                Some((first, last)) => {
                    let each_time = if grows {
                        (last - first) / f64::from(u32::try_from(SETTLED - 1).unwrap())
                    } else {
                        0.0
                    };
                    let times = goes_on - 1;
                    write!(values, "{}{each_time:+}x{times} ", last + each_time).unwrap();
                }
                None => write!(values, "_x{goes_on} ").unwrap(),
            }
        }
        values
    }
}

fn one(series: &str, values: &str) -> Value {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    let series = format!("{name}{{job=\"tidewire\",instance=\"a\"{comma}{labels}");
    json!({"series": series, "values": values})
}

/// `1806s` as promtool writes it: `30m6s`.
fn short(time: &str) -> String {
    let seconds: u32 = time.trim_end_matches('s').parse().unwrap();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    parts.concat() + ","
}

fn firing(told: &str) -> Vec<Firing> {
    let mut all = Vec::new();
    for line in told.lines().map(str::trim) {
        if let Some(labels) = line.strip_prefix("Labels:") {
            all.push(Firing {
                labels: pairs(labels),
                annotations: BTreeMap::new(),
            });
        } else if let (Some(annotations), Some(last)) =
            (line.strip_prefix("Annotations:"), all.last_mut())
        {
            last.annotations = pairs(annotations);
        }
    }
    all
}

/// `{name="value", other="value"}`.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let inside = text.trim_start_matches('{').trim_end_matches('}');
    let ends = inside.split("\", ").map(|pair| pair.trim_end_matches('"'));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").unwrap();
        (name.to_owned(), value.to_owned())
    };
    ends.map(pair).collect()
}
