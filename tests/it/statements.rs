//! Every statement of the floors that ask the database fits the real schema.

use std::path::PathBuf;

use tidewire::access::{ledger, registry, tenants};
use tidewire::log::{
    erasure, identity, listener, look, read, retaining, span, status, subject, upkeep, writer,
};

use crate::support::TestDb;

#[tokio::test]
async fn every_statement_prepares() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let files: [(&str, &[&str]); 14] = [
        ("identity", identity::STATEMENTS),
        ("writer", writer::STATEMENTS),
        ("listener", listener::STATEMENTS),
        ("read", read::STATEMENTS),
        ("span", span::STATEMENTS),
        ("status", status::STATEMENTS),
        ("look", look::STATEMENTS),
        ("erasure", erasure::STATEMENTS),
        ("subject", subject::STATEMENTS),
        ("retaining", retaining::STATEMENTS),
        ("upkeep", upkeep::STATEMENTS),
        ("ledger", ledger::STATEMENTS),
        ("registry", registry::STATEMENTS),
        ("tenants", tenants::STATEMENTS),
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
    let mut paths: Vec<PathBuf> = ["log", "access"]
        .map(|floor| format!("{}/src/{floor}", env!("CARGO_MANIFEST_DIR")).into())
        .into();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
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
