//! Declaring watches: what is taken, who did it, and the command.

use serde_json::{Value, json};
use tidewire::access::Claims;

use super::fixture::{beat, start, try_watch, until_told, unwatch, watch};
use crate::support::token::{claims, issue, token};
use crate::support::{Api, eventually};

#[tokio::test]
async fn what_is_no_watch_is_refused() {
    let (_db, server, acme) = start().await;
    for (name, wanted, parameter) in [
        ("w", json!({"topics": [], "within_s": 1}), "topics"),
        (
            "w",
            json!({"topics": vec!["a"; 11], "within_s": 1}),
            "topics",
        ),
        ("w", json!({"topics": ["A"], "within_s": 1}), "topics"),
        (
            "w",
            json!({"topics": ["tidewire.audit.*"], "within_s": 1}),
            "topics",
        ),
        ("w", json!({"topics": ["a"], "within_s": 0}), "within_s"),
        (
            "w",
            json!({"topics": ["a"], "within_s": 604_801}),
            "within_s",
        ),
        ("no%20name", json!({"topics": ["a"], "within_s": 1}), "name"),
    ] {
        let (status, problem) = try_watch(&acme, name, &wanted).await;
        assert_eq!(status, 400, "{wanted} {problem}");
        assert!(
            problem.to_string().contains(parameter),
            "{wanted} {problem}"
        );
    }
    assert_eq!(acme.get("/v1/watches").await, json!({"watches": []}));
    server.stop().await;
}

#[tokio::test]
async fn nobody_replaces_a_watch_that_they_may_not_see() {
    let (_db, server, acme) = start().await;
    watch(&acme, "beats", &["agent.*"], 60).await;
    let narrow = issue(&Claims {
        read: vec!["deal.*".into()],
        ..claims("acme")
    });
    let narrow = server.api.with_token(&narrow);
    let wanted = json!({"topics": ["deal.*"], "within_s": 60});
    assert_eq!(try_watch(&narrow, "beats", &wanted).await.0, 403);
    assert_eq!(unwatch(&narrow, "beats").await, 403);
    assert_eq!(try_watch(&narrow, "own", &wanted).await.0, 200);
    let names = async |api: &Api| -> Vec<String> {
        let listed = api.get("/v1/watches").await;
        let watches = listed["watches"].as_array().unwrap();
        watches
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&narrow).await, ["own"]);
    assert_eq!(names(&acme).await, ["beats", "own"]);
    let left = acme.get("/v1/watches/beats").await;
    assert_eq!(left["topics"], json!(["agent.*"]));
    server.stop().await;
}

#[tokio::test]
async fn every_change_is_in_the_tenants_own_log() {
    let (db, server, acme) = start().await;
    watch(&acme, "beats", &["agent.*", "a.b"], 60).await;
    let set = watch(&acme, "beats", &["agent.*"], 30).await;
    assert_eq!(
        (&set["changed_by"], &set["within_s"]),
        (&json!("test"), &json!(30))
    );
    assert_eq!(unwatch(&acme, "beats").await, 204);
    assert_eq!(unwatch(&acme, "beats").await, 404);
    // As the database's operator.
    let insert = "INSERT INTO tidewire.watches (tenant, name, topics, within_s) VALUES ('acme', 'sql', '{a}', 5)";
    db.connect().await.batch_execute(insert).await.unwrap();
    let log = eventually(super::fixture::PATIENCE, || async {
        let page = acme
            .page("earliest", "&topics=tidewire.audit.watch.*")
            .await;
        let events = page["events"].as_array().unwrap().clone();
        if events.len() == 4 {
            Ok(events)
        } else {
            Err(events)
        }
    })
    .await;
    let told: Vec<(&str, &Value)> = log
        .iter()
        .map(|event| {
            (
                event["topic"].as_str().unwrap().rsplit('.').next().unwrap(),
                &event["data"],
            )
        })
        .collect();
    assert_eq!(
        told[0],
        (
            "set",
            &json!({"watch": "beats", "topics": ["agent.*", "a.b"], "within_s": 60})
        )
    );
    assert_eq!(
        told[2],
        (
            "removed",
            &json!({"watch": "beats", "topics": ["agent.*"], "within_s": 30})
        )
    );
    assert!(
        log[..3].iter().all(|event| event["source"] == "test"),
        "{log:?}"
    );
    assert_eq!(
        told[3],
        (
            "set",
            &json!({"watch": "sql", "topics": ["a"], "within_s": 5})
        )
    );
    assert_ne!(log[3]["source"], "test");
    server.stop().await;
}

#[tokio::test]
async fn the_command_sets_lists_and_removes() {
    let (db, server, acme) = start().await;
    let run = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.arg("watch").args(words);
        command.args(["--url", &server.api.url, "--token", &token("acme")]);
        let output = command.output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output.status.success(), lines, said)
    };
    assert!(
        run(&[
            "set",
            "beats",
            "--topics",
            "agent.heartbeat.*,a.b",
            "--within",
            "1"
        ])
        .await
        .0
    );
    let (_, listed, _) = run(&["list"]).await;
    assert_eq!(
        (listed.len(), &listed[0]["topics"]),
        (1, &json!(["agent.heartbeat.*", "a.b"]))
    );
    beat(&acme, &["a"]).await;
    until_told(&db.connect().await, "a", &["stalled"]).await;
    let (_, stalled, _) = run(&["list", "beats"]).await;
    assert_eq!((stalled.len(), &stalled[0]["subject"]), (1, &json!("a")));
    assert!(run(&["remove", "beats"]).await.0);
    let (is_well, _, said) = run(&["remove", "beats"]).await;
    assert!(!is_well && said.contains("watch list"), "{said}");
    server.stop().await;
}
