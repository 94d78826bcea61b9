//! `tidewire key` and `tidewire revoke`.

use serde_json::json;

use super::support::{Server, events, stderr, tidewire};
use crate::support::server::Server as Running;
use crate::support::{Api, TestDb};

fn key_of(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    let key = String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim()
        .to_owned();
    assert!(key.starts_with("tw_"), "{key}");
    key
}

#[tokio::test]
async fn keys_are_created_listed_and_revoked() {
    let server = Server::start().await;
    let created = server
        .run(&[
            "key", "create", "--name", "a", "--write", "deal.*", "--days", "1",
        ])
        .await;
    let key = key_of(&created);
    let append = async || {
        let mut command = tidewire(&["append", "--topic", "deal.won"]);
        command
            .env("TIDEWIRE_URL", &server.url)
            .env("TIDEWIRE_TOKEN", &key);
        command.output().await.unwrap()
    };
    let appended = append().await;
    assert!(appended.status.success(), "{}", stderr(&appended));
    let listed = server.run(&["key", "list"]).await;
    let listed = events(&listed.stdout);
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["role"]),
        (&json!("a"), &json!("agent"))
    );
    let id = listed[0]["id"].as_str().unwrap();
    let revoked = server.run(&["key", "revoke", id]).await;
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    let refused = append().await;
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("revoked"), "{}", stderr(&refused));
    let missing = server.run(&["key", "revoke", "0000000000000000"]).await;
    assert!(
        stderr(&missing).contains("tidewire key list"),
        "{}",
        stderr(&missing)
    );
}

#[tokio::test]
async fn a_server_for_api_keys_alone_gets_its_first_from_the_database() {
    let db = TestDb::new().await;
    let server = Running::start_with(&db.url, &["--api-keys-only"]).await;
    let (status, _) = server.api.try_get("/v1/events").await;
    assert_eq!(status, 401, "no development mode");
    let words = [
        "key",
        "create",
        "--in-database",
        "--tenant",
        "acme",
        "--name",
        "first",
        "--role",
        "admin",
    ];
    let words: Vec<&str> = words
        .into_iter()
        .chain(["--read", "*", "--write", "*"])
        .collect();
    let mut create = tidewire(&words);
    // Not in the arguments, which everybody on the machine may read.
    create.env("DATABASE_URL", &db.url);
    let key = key_of(&create.output().await.unwrap());
    let admin = server.api.with_token(&key);
    admin.append(&json!({"topic": "deal.won"})).await;
    assert_eq!(
        admin.get("/v1/api-keys").await["api_keys"][0]["name"],
        "first"
    );
    let without = tidewire(&["key", "create", "--in-database", &db.url, "--name", "x"])
        .output()
        .await
        .unwrap();
    assert!(
        stderr(&without).contains("--tenant"),
        "{}",
        stderr(&without)
    );
    let nowhere = tidewire(&words).env_remove("DATABASE_URL").output();
    let said = stderr(&nowhere.await.unwrap());
    assert!(
        said.contains("or DATABASE_URL in the environment"),
        "{said}"
    );
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_revoked_by_name() {
    let server = Server::start().await;
    // The one who revokes is the one who is revoked: what it holds was issued before now, or does not say when.
    let revoked = server.run(&["revoke", "--sub", "developer"]).await;
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    let refused = server.run(&["key", "list"]).await;
    assert!(stderr(&refused).contains("revoked"), "{}", stderr(&refused));
    for words in [&["revoke"][..], &["revoke", "--sub", "a", "--jti", "b"]] {
        assert_eq!(server.run(words).await.status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_revocation_is_taken_back_once() {
    let server = Server::start().await;
    let api = Api::new(&server.url).with_token(&server.token);
    let revocations = async || api.get("/v1/revocations").await["revocations"].clone();
    let token = ["revoke", "--jti", "stolen/1"];
    let revoked = server.run(&token).await;
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    assert_eq!(revocations().await[0]["value"], "stolen/1");
    let undo = [&token[..], &["--undo"]].concat();
    let back = server.run(&undo).await;
    assert!(back.status.success(), "{}", stderr(&back));
    assert_eq!(revocations().await, json!([]));
    let again = server.run(&undo).await;
    assert!(!again.status.success());
    assert!(stderr(&again).contains("revocation"), "{}", stderr(&again));
}
