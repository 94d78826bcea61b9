//! `tidewire check` as a process.

use serde_json::Value;

use super::tampering::{Harm, Spoil, Tampering, Way};
use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Server, TestDb};

async fn check(url: &str, words: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.arg("check").args(words);
    command.args(["--url", url, "--token", &token::token("acme")]);
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_people_and_programs_and_its_exit_code_says_it() {
    let db = TestDb::new().await;
    let mut arguments = WITH_TOKENS.to_vec();
    arguments.extend(["--operator-tenant", "acme"]);
    let server = Server::start_with(&db.url, &arguments).await;
    let other = token::token("beta");
    let passed = check(&server.api.url, &["quick", "--other-token", &other]).await;
    let text = String::from_utf8(passed.stdout).unwrap();
    assert!(passed.status.success(), "{text}");
    assert!(text.contains("ok    transports/websocket"), "{text}");
    assert!(
        text.lines().last().unwrap().starts_with("passed: "),
        "{text}"
    );

    let proxy = Tampering::before(&server.api, Spoil::Delivered(Way::Sse, Harm::Repeats)).await;
    let failed = check(&proxy.api.url, &["quick", "--json"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&failed.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let sse = checks
        .iter()
        .find(|one| one["name"] == "transports/sse")
        .unwrap();
    assert_eq!(sse["outcome"], "failed", "{sse}");
    assert!(sse["cause"].as_str().unwrap().contains("twice"), "{sse}");
    let stderr = String::from_utf8(failed.stderr).unwrap();
    assert!(
        stderr.contains("transports/sse") && stderr.contains("checks failed"),
        "{stderr}"
    );

    let by_server = check(&server.api.url, &["quick", "--by-server", "--json"]).await;
    let report: Value = serde_json::from_slice(&by_server.stdout).unwrap();
    assert_eq!(
        (by_server.status.success(), &report["tenant"]),
        (true, &"tidewire-check".into()),
        "{report:#}"
    );

    let plain = check(&server.api.url, &[]).await;
    assert_eq!(String::from_utf8(plain.stdout).unwrap().lines().count(), 5);
    server.stop().await;
    let gone = check(&server_url_of_nobody(), &["quick"]).await;
    assert_eq!(gone.status.code(), Some(1));
}

/// A port that nobody listens at.
fn server_url_of_nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
