//! `GET /v1/audit` and `tidewire audit`: committed against received.

use serde_json::{Value, json};
use tidewire::access::Role;
use tidewire::event::digest::IdsDigest;

use crate::support::token::{self, WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb};

fn digest<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = IdsDigest::default();
    for id in ids {
        digest.add(id);
    }
    digest.to_string()
}

async fn audit(api: &Api, file: &str, words: &[&str]) -> (bool, Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args(["audit", "--json", "--received", file])
        .args(words);
    command.args(["--url", &api.url, "--token", &token::token("acme")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    (output.status.success(), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_twice_or_unknown_is_named() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token::token("acme"));
    let events = |topic: &str, from: usize, to: usize| -> Value {
        (from..to)
            .map(|n| json!({"topic": topic, "id": format!("{topic}-{n}")}))
            .collect()
    };
    for batch in 0..3 {
        api.append(&events("a.x", batch * 900, (batch + 1) * 900))
            .await;
        api.append(&events("b.x", batch * 10, (batch + 1) * 10))
            .await;
    }
    // Another tenant's, of the same topic and ids.
    server
        .api
        .with_token(&token::token("beta"))
        .append(&events("a.x", 0, 5))
        .await;
    let ids: Vec<String> = (0..2_700).map(|n| format!("a.x-{n}")).collect();
    let end = api.page("latest", "&topics=a.*").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let committed = api.get(&format!("/v1/audit?topics=a.*&until={end}")).await;
    assert_eq!(
        (&committed["count"], &committed["has_more"]),
        (&json!(2_700), &json!(false)),
        "{committed}"
    );
    assert_eq!(
        committed["digest"],
        digest(ids.iter().map(String::as_str)),
        "{committed}"
    );
    let intervals = committed["intervals"].as_array().unwrap();
    assert!(
        intervals.len() >= 3
            && intervals
                .windows(2)
                .all(|pair| pair[0]["through"] == pair[1]["after"]),
        "{committed}"
    );
    // The first interval again, by its own bounds.
    let first = &intervals[0];
    let bounds = format!(
        "after={}&until={}",
        first["after"].as_str().unwrap(),
        first["through"].as_str().unwrap()
    );
    let again = api.get(&format!("/v1/audit?topics=a.*&{bounds}")).await;
    assert_eq!(
        (&again["count"], &again["digest"]),
        (&first["count"], &first["digest"]),
        "{again}"
    );

    spoil(&server.api, &ids, &end).await;
    server.stop().await;
}

/// All of them received, and then not quite.
async fn spoil(api: &Api, ids: &[String], end: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received");
    let file = path.to_str().unwrap();
    let words = ["--topics", "a.*", "--until", end];
    std::fs::write(&path, ids.join("\n")).unwrap();
    let (is_whole, report) = audit(api, file, &words).await;
    assert!(is_whole, "{report}");
    // One left out, one twice, one of nobody's; as events as well as ids.
    let mut spoilt: Vec<String> = ids.iter().filter(|id| *id != "a.x-1500").cloned().collect();
    spoilt.insert(20, json!({"id": "a.x-19", "topic": "a.x"}).to_string());
    spoilt.push("nobody".to_owned());
    std::fs::write(&path, spoilt.join("\n")).unwrap();
    let (is_whole, report) = audit(api, file, &words).await;
    assert!(!is_whole, "{report}");
    let difference = &report["difference"];
    assert_eq!(difference["missing"], json!(["a.x-1500"]), "{report}");
    assert_eq!(difference["duplicated"], json!(["a.x-19"]), "{report}");
    assert_eq!(difference["unknown"], json!(["nobody"]), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_counts_more_than_they_may_read() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    admin
        .append(&json!([{"topic": "a.x"}, {"topic": "b.x"}, {"topic": "b.y"}]))
        .await;
    let mut narrow = claims("acme");
    narrow.role = Role::Agent;
    narrow.read = vec!["b.*".into()];
    let narrow = server.api.with_token(&issue(&narrow));
    assert_eq!(narrow.get("/v1/audit").await["count"], 2);
    assert_eq!(narrow.try_get("/v1/audit?topics=a.*").await.0, 403);
    assert_eq!(narrow.try_get("/v1/audit?topic=b.*").await.0, 400);
    let stranger = server.api.with_token(&token::token("beta"));
    assert_eq!(stranger.get("/v1/audit").await["count"], 0);
    server.stop().await;
}
