//! Every statement of the floors that ask the database fits the real schema.

use std::path::Path;

use tidewire::access::{ledger, registry};
use tidewire::log::{identity, listener, look, read, span, status, upkeep, writer};

use crate::support::TestDb;

#[tokio::test]
async fn every_statement_prepares() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let files: [(&str, &[&str]); 10] = [
        ("identity", identity::STATEMENTS),
        ("writer", writer::STATEMENTS),
        ("listener", listener::STATEMENTS),
        ("read", read::STATEMENTS),
        ("span", span::STATEMENTS),
        ("status", status::STATEMENTS),
        ("look", look::STATEMENTS),
        ("upkeep", upkeep::STATEMENTS),
        ("ledger", ledger::STATEMENTS),
        ("registry", registry::STATEMENTS),
    ];
    for (file, statements) in files {
        assert!(!statements.is_empty(), "{file}");
        for statement in statements {
            let prepared = client.prepare(statement).await;
            assert!(
                prepared.is_ok(),
                "{file}: {statement}: {:?}",
                prepared.err()
            );
        }
    }
}

/// A statement that is in no list would not be prepared above: every `const … = "…SELECT` of the floors that
/// ask the database is in one.
#[test]
fn no_statement_is_left_out_of_the_lists() {
    let folder = |name| std::fs::read_dir(format!("{}/src/{name}", env!("CARGO_MANIFEST_DIR")));
    let folders = ["log", "access", "access/limits"];
    for entry in folders.iter().flat_map(|name| folder(name).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
            let name = name.unwrap();
            assert!(folders.iter().any(|known| Path::new(known) == name));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let listed = text
            .split_once("STATEMENTS: &[&str] = &[")
            .and_then(|(_, rest)| rest.split_once("];"))
            .map(|(names, _)| names)
            .unwrap_or_default();
        for item in text.split("const ").skip(1) {
            let Some((name, value)) = item.split_once(": &str =") else {
                continue;
            };
            let value = value.split(';').next().unwrap();
            let is_sql = ["SELECT ", "INSERT ", "UPDATE ", "LISTEN "]
                .iter()
                .any(|word| value.contains(word));
            let is_listed = listed.split([',', ' ', '\n']).any(|one| one == name);
            assert!(!is_sql || is_listed, "{}: {name}", path.display());
        }
        for call in ["query(\"", "query_one(\"", "query_opt(\"", "execute(\""] {
            let settings = text.matches(&format!("{call}SET ")).count();
            let said = text.matches(call).count();
            assert_eq!(said, settings, "{}: {call}", path.display());
        }
    }
}
