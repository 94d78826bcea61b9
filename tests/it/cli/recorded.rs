//! Real input: recorded agent runs, imported by one process and followed by another, digest against digest.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::support::{Server, events, ids, stderr};

/// Keys in order, so that it does not matter how a server keeps an object.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members
                .into_iter()
                .map(|(name, value)| format!("{name:?}:{}", canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(canonical).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

fn digest<'a>(values: impl Iterator<Item = &'a Value>) -> String {
    let mut digest = Sha256::new();
    for value in values {
        digest.update(canonical(value));
        digest.update("\n");
    }
    data_encoding::HEXLOWER.encode(&digest.finalize())
}

fn agent_runs() -> Option<PathBuf> {
    let given = std::env::var_os("TIDEWIRE_AGENT_RUNS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/agent-runs.ndjson");
    given.or(Some(beside)).filter(|path| path.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_arrive_as_they_were() {
    let Some(path) = agent_runs() else {
        println!("skipped: no agent-runs.ndjson; name one with TIDEWIRE_AGENT_RUNS");
        return;
    };
    let recorded = events(&std::fs::read(&path).unwrap());
    let server = Server::start().await;
    // The reader is there before the first event, and in a process of its own.
    let count = recorded.len().to_string();
    let reader = server.command(&[
        "follow", "--topics", "agent.*", "--after", "earliest", "--limit", &count,
    ]);
    let reader = { reader }.spawn().unwrap().wait_with_output();
    let import = [
        "import",
        path.to_str().unwrap(),
        "--id",
        "/id",
        "--subject",
        "/run",
        "--topic",
        "/kind",
        "--topic-prefix",
        "agent.",
    ];
    let import = server.run(&import).await;
    assert!(import.status.success(), "{}", stderr(&import));
    let followed = reader.await.unwrap();
    assert!(followed.status.success(), "{}", stderr(&followed));
    let followed = events(&followed.stdout);
    assert_eq!(ids(&followed), ids(&recorded));
    assert!(
        followed
            .iter()
            .zip(&recorded)
            .all(|(event, line)| event["subject"] == line["run"])
    );
    assert_eq!(
        digest(followed.iter().map(|event| &event["data"])),
        digest(recorded.iter())
    );
}
