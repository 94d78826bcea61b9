//! The shape of the code: floors point down only, each outside crate has its home, every file is short and says what it is.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// For each module, the modules it may name beside itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("fair", &["event"]),
    ("tasks", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    ("pg", &["tasks", "tls"]),
    ("log", &["event", "fair", "pg", "tasks"]),
    ("access", &["event", "fair", "pg", "tasks"]),
    ("feed", &["event", "fair", "log", "tasks"]),
    (
        "http",
        &["access", "event", "fair", "feed", "log", "tasks", "tls"],
    ),
    // Only where settings take their types from.
    ("config", &["access", "event", "log"]),
    ("client", &["access", "event", "tasks", "tls"]),
    (
        "app",
        &[
            "access", "config", "event", "feed", "http", "log", "pg", "tasks",
        ],
    ),
    (
        "cli",
        &[
            "access",
            "app",
            "client",
            "config",
            "event",
            "http",
            "log",
            "pg",
            "tasks",
            "telemetry",
        ],
    ),
    ("main", &["cli"]),
];

/// For each outside crate, the modules that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("axum", &["http", "app"]),
    ("tower_http", &["http"]),
    ("tokio_postgres", &["access", "log", "pg"]),
    ("deadpool_postgres", &["log"]),
    ("postgres_types", &["log"]),
    ("scopeguard", &["feed", "log", "tasks"]),
    ("postgres_protocol", &["pg"]),
    ("refinery", &["pg"]),
    ("jsonschema", &["access"]),
    ("jsonwebtoken", &["access"]),
    ("reqwest", &["access", "client", "cli"]),
    ("indicatif", &["cli"]),
    ("moka", &["access", "feed"]),
    ("anyhow", &["cli", "main"]),
    ("governor", &["access"]),
    ("tracing_subscriber", &["telemetry"]),
    ("rmp_serde", &["event", "http"]),
    ("tokio_rustls", &["http"]),
    ("tokio_postgres_rustls", &["pg"]),
    ("x509_cert", &["tls"]),
];

/// A file beyond this holds two nouns.
const LINES_MAX: usize = 400;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    // What stands in a folder of tests is no part of the program.
    found
        .into_iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "tests"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The module a file belongs to: the first folder below `src`, or the file's own name.
fn module(path: &Path) -> String {
    let below = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    below
        .components()
        .next()
        .expect("a file")
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Lines of code: no comments, and nothing from the tests at the file's foot.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn arrows_point_down_only() {
    for (path, text) in sources() {
        let own = module(&path);
        if own == "lib" {
            continue;
        }
        let (_, allowed) = FLOORS
            .iter()
            .find(|(name, _)| *name == own)
            .unwrap_or_else(|| panic!("{own} is not a floor"));
        for line in code(&text) {
            for (floor, _) in FLOORS {
                let is_named = ["crate::"].iter().any(|root| {
                    line.split(root).skip(1).any(|rest| {
                        rest.strip_prefix(floor).is_some_and(|rest| {
                            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                        })
                    })
                });
                assert!(
                    !is_named || *floor == own || allowed.contains(floor),
                    "`{own}` may not name `{floor}`: {}: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn outside_crates_stay_at_home() {
    for (path, text) in sources() {
        let own = module(&path);
        for line in code(&text) {
            for (name, homes) in HOMES {
                let is_named = line.contains(&format!("{name}::"));
                assert!(
                    !is_named || homes.contains(&own.as_str()),
                    "`{own}` may not name `{name}`: {}: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{} does not open with //!",
            path.display()
        );
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn migrations_have_names_that_are_run() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let number = name
            .strip_prefix('V')
            .and_then(|rest| rest.split_once("__"))
            .map(|(number, _)| number);
        let is_run = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            && Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "sql");
        assert!(is_run, "refinery would skip migrations/{name}");
    }
}
