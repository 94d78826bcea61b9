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
    ("backoff", &[]),
    ("fair", &["event"]),
    ("tasks", &[]),
    ("telemetry", &["event"]),
    ("tls", &[]),
    ("pg", &["tasks", "tls"]),
    (
        "log",
        &["backoff", "event", "fair", "pg", "tasks", "telemetry"],
    ),
    ("access", &["backoff", "event", "fair", "pg", "tasks"]),
    (
        "consume",
        &["backoff", "event", "log", "pg", "tasks", "telemetry"],
    ),
    ("feed", &["event", "fair", "log", "tasks", "telemetry"]),
    (
        "http",
        &[
            "access",
            "consume",
            "event",
            "fair",
            "feed",
            "log",
            "tasks",
            "telemetry",
            "tls",
        ],
    ),
    // Only where settings take their types from.
    ("config", &["access", "event", "log"]),
    ("client", &["access", "backoff", "event", "tasks", "tls"]),
    // Knows a server over the wire alone, as any client does.
    ("check", &["backoff", "client", "tasks"]),
    (
        "app",
        &[
            "access",
            "backoff",
            "check",
            "client",
            "config",
            "consume",
            "event",
            "feed",
            "http",
            "log",
            "pg",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "access",
            "app",
            "check",
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
    ("tokio_postgres", &["access", "consume", "log", "pg"]),
    ("deadpool_postgres", &["log"]),
    ("postgres_types", &["log"]),
    ("scopeguard", &["feed", "log", "tasks"]),
    ("postgres_protocol", &["pg"]),
    ("refinery", &["pg"]),
    ("jsonschema", &["access"]),
    ("jsonwebtoken", &["access"]),
    ("reqwest", &["access", "client", "cli", "telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_proto", &["telemetry"]),
    ("prost", &["telemetry"]),
    ("hyper", &["http"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("indicatif", &["cli"]),
    ("moka", &["access", "feed"]),
    ("anyhow", &["cli", "main"]),
    ("governor", &["access"]),
    ("prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("rmp_serde", &["event", "http"]),
    ("tokio_rustls", &["http"]),
    ("tokio_tungstenite", &["client"]),
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

/// Floors of many files, whose map is to be complete.
const MAPPED: &[&str] = &["access", "event", "feed", "http", "log", "pg"];

#[test]
fn the_code_map_names_every_noun() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    for floor in MAPPED {
        let row = format!("| `src/{floor}/` |");
        let mut rows = map.lines().filter(|line| line.starts_with(&row));
        let row = rows.next().unwrap_or_else(|| panic!("no row for {floor}"));
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        let folder = root.join("src").join(floor);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // A folder beside its file stands for the same; what is only there for tests or pages is no noun.
            let noun = match (path.is_dir(), path.extension().is_some_and(|e| e == "rs")) {
                (true, _) if path.with_extension("rs").exists() => continue,
                (true, _) => format!("{name}/"),
                (false, true) if name != "mod.rs" => name,
                (false, _) => continue,
            };
            assert!(
                named.contains(&noun.as_str()),
                "the map of src/{floor}/ in docs/ARCHITECTURE.md lacks `{noun}`"
            );
        }
        for noun in named.iter().filter(|name| name.contains(".rs")) {
            assert!(
                folder.join(noun).exists(),
                "the map has {floor}/{noun}, which is not there"
            );
        }
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

/// A class of advisory locks, the key if the code writes it as a number, and the file.
type LockUse = (i64, Option<i64>, String);

/// What stands in the table of docs/ARCHITECTURE.md.
fn listed_locks() -> Vec<LockUse> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("## Advisory locks").expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut rows: Vec<(i64, Option<i64>)> = Vec::new();
    let mut listed = Vec::new();
    for line in section.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, class, key, _, files, _] = cells[..] else {
            continue;
        };
        let Ok(class) = class.parse::<i64>() else {
            continue;
        };
        let key = key.parse::<i64>().ok();
        for (other, other_key) in &rows {
            let is_apart = key.is_some() && other_key.is_some() && key != *other_key;
            assert!(*other != class || is_apart, "{class} has two meanings");
        }
        rows.push((class, key));
        let files = files.split('`').skip(1).step_by(2);
        listed.extend(files.map(|file| (class, key, file.to_owned())));
    }
    listed
}

/// Numbers that classes are taken from, each with what follows it.
fn classes(line: &str) -> Vec<(i64, String)> {
    let line = line.replace('_', "");
    let class = |(at, _)| {
        let (number, after) = line.split_at(at).1.split_at_checked(10)?;
        Some((number.parse().ok()?, after.to_owned()))
    };
    line.match_indices("1953064").filter_map(class).collect()
}

fn used_locks() -> Vec<LockUse> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<(PathBuf, String)> = sources()
        .into_iter()
        .map(|(path, text)| (path, code(&text).collect::<Vec<_>>().join("\n")))
        .collect();
    for folder in ["functions", "triggers", "views", "grants", "roles"] {
        for entry in fs::read_dir(root.join("sql").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| line.split("--").next().unwrap());
            texts.push((path.clone(), lines.collect::<Vec<_>>().join("\n")));
        }
    }
    let mut used = Vec::new();
    for (path, text) in texts {
        let file = path.strip_prefix(root).unwrap().display().to_string();
        for line in text.lines() {
            used.extend(classes(line).into_iter().map(|(class, after)| {
                let key = after.strip_prefix(", ").map(|rest| {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
                    rest.split_at(end).0
                });
                let key = key.and_then(|key| key.parse::<i64>().ok());
                (class, key, file.clone())
            }));
            // No lock goes by numbers that this does not see.
            for call in line.split("advisory_").skip(1) {
                let Some((_, argument)) = call.split_once('(') else {
                    continue;
                };
                assert!(
                    argument.starts_with("$1") || !classes(argument).is_empty(),
                    "{file}: {line}"
                );
            }
        }
    }
    used
}

/// Two that mean something else by one number wait for each other, or take each other's word.
#[test]
fn a_number_of_an_advisory_lock_has_one_meaning() {
    let listed = listed_locks();
    let has_written_keys = |class| {
        listed
            .iter()
            .any(|(other, key, _)| *other == class && key.is_some())
    };
    let used: Vec<LockUse> = used_locks()
        .into_iter()
        .map(|(class, key, file)| (class, key.filter(|_| has_written_keys(class)), file))
        .collect();
    assert!(used.len() > 10, "{used:?}");
    for one in &used {
        assert!(
            listed.contains(one),
            "{one:?}: docs/ARCHITECTURE.md says otherwise"
        );
    }
    for one in &listed {
        assert!(used.contains(one), "{one:?} is used nowhere");
    }
}
