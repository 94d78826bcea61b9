//! Every statement of the floors that ask the database fits the real schema.

use std::path::PathBuf;

use tidewire::access::{ledger, news, registry, revocations, tenants};
use tidewire::consume::{runner, watch::store};
use tidewire::log::{
    consumers, erasure, facts, identity, listener, look, read, retaining, span, sql_appends,
    status, subject, upkeep, watches, writer,
};

use crate::support::TestDb;

fn lists() -> [(&'static str, &'static [&'static str]); 22] {
    [
        ("identity", identity::STATEMENTS),
        ("writer", writer::STATEMENTS),
        ("listener", listener::STATEMENTS),
        ("read", read::STATEMENTS),
        ("span", span::STATEMENTS),
        ("sql_appends", sql_appends::STATEMENTS),
        ("status", status::STATEMENTS),
        ("look", look::STATEMENTS),
        ("erasure", erasure::STATEMENTS),
        ("subject", subject::STATEMENTS),
        ("retaining", retaining::STATEMENTS),
        ("upkeep", upkeep::STATEMENTS),
        ("facts", facts::STATEMENTS),
        ("watches", watches::STATEMENTS),
        ("consumers", consumers::STATEMENTS),
        ("runner", runner::STATEMENTS),
        ("store", store::STATEMENTS),
        ("ledger", ledger::STATEMENTS),
        ("revocations", revocations::STATEMENTS),
        ("news", news::STATEMENTS),
        ("registry", registry::STATEMENTS),
        ("tenants", tenants::STATEMENTS),
    ]
}

#[tokio::test]
async fn every_statement_prepares() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for (file, statements) in lists() {
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
    let mut paths: Vec<PathBuf> = ["log", "access", "consume"]
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

/// What is asked of all tenants' rows, by words of it, and why.
const OF_ALL_TENANTS: &[(&str, &str)] = &[
    (
        "min(seq) FROM tidewire.events",
        "a time is looked up in the order that all share; a place comes back",
    ),
    (
        "e.seq > $1 AND e.recorded_at >= $2",
        "the tail: what it reads is kept by tenant",
    ),
    ("ORDER BY seq DESC LIMIT 1", "where the tail begins"),
    (
        "FROM tidewire.retained_tenants",
        "a server knows where each tenant's log begins",
    ),
    (
        "FROM tidewire.erased_tenants",
        "a server forgets what was erased, whoever's it was",
    ),
    (
        "LEFT JOIN tidewire.tenant_roles AS r ON r.role = w.role",
        "who holds the watermark back, with whose role it is: `Holder` keeps its name from others",
    ),
    ("k.key_id = ANY ($1)", "a key is what says whose it is"),
    (
        "(tenant, claim, value) > ($1, $2, $3)",
        "a server knows all revocations, by tenant",
    ),
    (
        "AS look LEFT JOIN tidewire.setting_changes AS c",
        "a server reads anew what any tenant has changed",
    ),
    (
        "ON r.tenant = c.tenant AND r.claim = c.kind",
        "and which credentials",
    ),
    (
        "DELETE FROM tidewire.credential_changes",
        "what every server has seen goes",
    ),
    ("(SELECT $1::text AS tenant) AS t", "that tenant's"),
    (
        "unnest($1::text[]) AS t(tenant)",
        "of the tenants that are remembered",
    ),
    (
        "DELETE FROM tidewire.revoked_tokens",
        "what has ended goes, whoever's it was",
    ),
    (
        "FROM tidewire.sql_appends AS a LIMIT",
        "how many statements wait for a server: a number",
    ),
    (
        "a.tenant, a.topic, a.subject",
        "a consumer reads in the order that all share: what comes back is of those it asked for",
    ),
    (
        "AS c(tenant, subject, topics, after, nth)",
        "of these subjects, each of its tenant",
    ),
    (
        "since_seq, since_at FROM tidewire.watches",
        "whoever looks after watches does so for all, by tenant",
    ),
    (
        "AS d\n      JOIN tidewire.watches",
        "who is due, whoever's it is, by tenant",
    ),
    (
        "count(*) FROM tidewire.watched AS o",
        "how many have stalled: a number",
    ),
    ("SET last_used_at", "of keys that were let in"),
    (
        "DELETE FROM tidewire.api_keys",
        "what ended long ago goes, whoever's it was",
    ),
];

/// A tenant's filter that was taken away is noticed, in statements that no other test would miss it in.
#[tokio::test]
async fn statements_on_tenants_rows_name_the_tenant() {
    let db = TestDb::new().await;
    let tables = "SELECT c.oid::regclass::text FROM pg_class AS c
                    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
                   WHERE c.relnamespace = 'tidewire'::regnamespace AND c.relkind = 'r'";
    let rows = db.connect().await.query(tables, &[]).await.unwrap();
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(tables.len() >= 7, "{tables:?}");
    let asked = |statement: &str| -> usize {
        let of_table = |table: &String| -> usize {
            let words = ["FROM", "JOIN", "UPDATE"].map(|word| format!("{word} {table}"));
            let of_word = |word: &String| {
                let rests = statement.split(word.as_str()).skip(1);
                let goes_on =
                    |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
                rests.filter(|rest| !goes_on(rest)).count()
            };
            words.iter().map(of_word).sum()
        };
        tables.iter().map(of_table).sum()
    };
    let statements = lists().into_iter().flat_map(|(_, statements)| statements);
    let unfiltered: Vec<&str> = statements
        .copied()
        .filter(|one| asked(one) > one.matches("tenant = $").count())
        .collect();
    for statement in &unfiltered {
        let mut known = OF_ALL_TENANTS.iter();
        assert!(
            known.any(|(words, _)| statement.contains(words)),
            "whose rows? {statement}"
        );
    }
    assert_eq!(unfiltered.len(), OF_ALL_TENANTS.len(), "{unfiltered:#?}");
}
