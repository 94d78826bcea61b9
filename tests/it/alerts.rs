//! The alert rules, their tests, and the dashboard: Prometheus takes them, and what they name is there.

mod causes;
mod live;
mod scrapes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::metrics::promtool;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

const RULES: &str = "deploy/prometheus/alerts.yml";
const TESTS: &str = "deploy/prometheus/alerts_test.yml";

/// By the name of the alert.
fn alerts() -> BTreeMap<String, Value> {
    let rules = yaml(RULES);
    let groups = list(&rules["groups"]).iter();
    let rules = groups.flat_map(|group| list(&group["rules"]).clone());
    rules
        .map(|rule| (text(&rule["alert"]).to_owned(), rule))
        .collect()
}

/// Runs promtool in a folder; whether it was content, and what it said.
async fn ask(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let said = tokio::process::Command::new(promtool())
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let [out, err] =
        [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (said.status.success(), out + &err)
}

#[tokio::test]
async fn prometheus_takes_the_rules_and_their_tests_hold() {
    let folder = root().join("deploy/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let (is_content, said) = ask(&folder, &arguments).await;
        assert!(is_content, "{arguments:?}: {said}");
    }
}

/// The names of metrics in an expression, with the labels that are chosen of each or counted by.
fn named(expression: &str) -> BTreeSet<String> {
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let words = expression.split(is_other);
    let ours = words.filter(|word| word.starts_with("tidewire_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// Whether a group of tests expects the alert; each asks for one.
fn fires(group: &Value) -> (String, bool) {
    let asked = list(&group["alert_rule_test"]);
    assert_eq!(asked.len(), 1, "{group}");
    let name = text(&asked[0]["alertname"]).to_owned();
    (name, !list(&asked[0]["exp_alerts"]).is_empty())
}

fn series(group: &Value) -> BTreeSet<String> {
    let series = list(&group["input_series"]).iter();
    series
        .map(|one| text(&one["series"]).split('{').next().unwrap().to_owned())
        .collect()
}

/// Which tests fail if every rule has this expression, and fires at once.
async fn failing(expression: &str, is_kept: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    let (mut rules, mut tests) = (yaml(RULES), yaml(TESTS));
    for group in rules["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            let rule = rule.as_object_mut().unwrap();
            rule.insert("expr".to_owned(), json!(expression));
            rule.remove("for");
        }
    }
    tests["tests"].as_array_mut().unwrap().retain(is_kept);
    // JSON is YAML.
    for (name, document) in [("alerts.yml", rules), ("alerts_test.yml", tests)] {
        std::fs::write(folder.path().join(name), document.to_string()).unwrap();
    }
    let (_, said) = ask(folder.path(), &["test", "rules", "alerts_test.yml"]).await;
    let failed = said.split("alertname: ").skip(1);
    failed
        .map(|rest| rest.split(',').next().unwrap().trim().to_owned())
        .collect()
}

#[tokio::test]
async fn each_alert_has_a_test_that_fires_it_and_one_that_does_not() {
    let tests = yaml(TESTS);
    let tests = list(&tests["tests"]);
    let alerts = alerts();
    for alert in alerts.keys() {
        let of = |wanted: bool| {
            let mut found = tests
                .iter()
                .filter(|group| fires(group) == (alert.clone(), wanted));
            found.next().unwrap_or_else(|| panic!("{alert}: {wanted}"))
        };
        let (firing, silent) = (series(of(true)), series(of(false)));
        // A test without the series would be silent whatever the rule says.
        assert!(silent.is_superset(&firing), "{alert}: {silent:?}");
        let known: BTreeSet<String> = firing.iter().cloned().collect();
        let rule = named(text(&alerts[alert]["expr"]));
        assert!(known.is_superset(&rule), "{alert}: {rule:?} {known:?}");
    }
    // A test that holds whatever the rule says tests nothing.
    let all: BTreeSet<String> = alerts.into_keys().collect();
    assert_eq!(failing("vector(0) > 1", |_| true).await, all);
    assert_eq!(failing("vector(1)", |group| !fires(group).1).await, all);
}

/// Metrics of the manual, which a test compares with the program's, with their kind and labels.
fn manual() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let manual = read("docs/OPERATIONS.md");
    let (_, table) = manual.split_once("\n## Metrics\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.trim_matches('`');
        let labels = cells.get(3)?.split(',').map(str::trim);
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        name.starts_with("tidewire_")
            .then(|| (name.to_owned(), (cells[2].to_owned(), labels.collect())))
    };
    table.lines().filter_map(row).collect()
}

/// Every expression of a panel and of what chooses servers.
fn panels(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "expr" || name == "definition" => {
                        found.push(text.clone());
                    }
                    _ => panels(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| panels(item, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap()
}

/// Labels that Prometheus gives, and that histograms have.
const GIVEN: [&str; 4] = ["instance", "job", "le", "alertstate"];

#[test]
fn rules_and_panels_name_metrics_and_labels_that_there_are() {
    let manual = manual();
    assert!(manual.len() > 30);
    let mut expressions = Vec::new();
    panels(&dashboard(), &mut expressions);
    assert!(expressions.len() > 40, "{}", expressions.len());
    let rules = alerts();
    expressions.extend(rules.values().map(|rule| text(&rule["expr"]).to_owned()));
    let mut drawn = BTreeSet::new();
    for expression in &expressions {
        let mut labels: BTreeSet<&str> = GIVEN.into();
        for name in named(expression) {
            if name.starts_with("process_") {
                continue;
            }
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|end| name.strip_suffix(end));
            let of_histogram = base.and_then(|base| Some((base, manual.get(base)?)));
            let (name, (kind, own)) = of_histogram
                .or_else(|| manual.get_key_value(&name).map(|(n, of)| (n.as_str(), of)))
                .unwrap_or_else(|| panic!("no {name}: {expression}"));
            // A histogram has no series of its plain name.
            assert_eq!(of_histogram.is_some(), kind == "histogram", "{expression}");
            labels.extend(own.iter().map(String::as_str));
            drawn.insert(name.to_owned());
        }
        for chosen in labels_of(expression) {
            assert!(labels.contains(chosen.as_str()), "{chosen}: {expression}");
        }
    }
    let left: Vec<_> = manual
        .keys()
        .filter(|name| !drawn.contains(*name))
        .collect();
    assert!(left.is_empty(), "neither drawn nor watched: {left:?}");
}

/// What stands before `=` in braces, and in the parentheses of `by`, `without` and `ignoring`.
fn labels_of(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for inside in expression.split('{').skip(1) {
        let inside = inside.split('}').next().unwrap();
        let pairs = inside
            .split(',')
            .filter_map(|pair| pair.split(['=', '!']).next());
        found.extend(pairs.map(|label| label.trim().to_owned()));
    }
    for by in ["by (", "without (", "ignoring ("] {
        for inside in expression.split(by).skip(1) {
            let inside = inside.split(')').next().unwrap();
            found.extend(inside.split(',').map(|label| label.trim().to_owned()));
        }
    }
    found.remove("");
    found
}

#[test]
fn each_alert_says_how_grave_it_is_and_what_to_do() {
    let manual = read("docs/OPERATIONS.md");
    let (_, section) = manual.split_once("\n## Alerts\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut anchors = BTreeMap::new();
    for chapter in section.split("\n### ").skip(1) {
        let (title, advice) = chapter.split_once('\n').unwrap();
        anchors.insert(title.to_owned(), advice.trim().to_owned());
    }
    let alerts = alerts();
    for (name, rule) in &alerts {
        let severity = text(&rule["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{name}");
        for said in ["summary", "description"] {
            let said = text(&rule["annotations"][said]);
            assert!(said.ends_with('.') && said.len() > 20, "{name}: {said}");
        }
        let runbook = format!("docs/OPERATIONS.md#{}", name.to_lowercase());
        assert_eq!(text(&rule["annotations"]["runbook"]), runbook);
        let advice = anchors.remove(name);
        let advice = advice.unwrap_or_else(|| panic!("no chapter for {name}"));
        assert!(
            advice.starts_with(&format!("*{severity}.*")),
            "{name}: {advice}"
        );
    }
    assert!(anchors.is_empty(), "no alert has {anchors:?}");
}

#[test]
fn compose_brings_what_watches_and_what_it_needs() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    let mut mounted = BTreeMap::new();
    for (name, service) in services {
        let mounts = service["volumes"].as_array().cloned().unwrap_or_default();
        for mount in &mounts {
            let mut parts = text(mount).split(':');
            let (from, to) = (parts.next().unwrap(), parts.next().unwrap());
            if from.starts_with('.') {
                assert!(root().join(from).exists(), "{name}: {from}");
                mounted.insert(to.to_owned(), PathBuf::from(from));
            } else {
                assert!(compose["volumes"].get(from).is_some(), "{name}: {from}");
            }
        }
        for needed in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(needed.0), "{name}: {}", needed.0);
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(text(port).starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
    let listen = text(&services["server"]["environment"]["TIDEWIRE_METRICS_LISTEN"]);
    let (_, port) = listen.rsplit_once(':').unwrap();
    let scraped = yaml("deploy/prometheus/prometheus.yml");
    let target = &scraped["scrape_configs"][0]["static_configs"][0]["targets"][0];
    assert_eq!(text(target), format!("server:{port}"));
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let source = &sources["datasources"][0];
    assert_eq!(source["url"], "http://prometheus:9090");
    let boards = yaml("deploy/grafana/provisioning/dashboards/tidewire.yml");
    let boards = text(&boards["providers"][0]["options"]["path"]);
    assert!(
        mounted.keys().any(|to| to.starts_with(boards)),
        "{mounted:?}"
    );
    let dashboard = dashboard();
    for panel in list(&dashboard["panels"]) {
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], source["uid"], "{panel}");
        }
    }
}
