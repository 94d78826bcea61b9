//! Rules of retention: set, shown and removed by administrators, each of its own tenant.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidewire::access::{Claims, Role};

use super::fixture::all;
use crate::support::client::json_of;
use crate::support::credentials::admin;
use crate::support::reader::Transport;
use crate::support::token::{WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb, eventually};

/// PUT of a rule: status and answer.
pub async fn try_set(api: &Api, pattern: &str, rule: &Value) -> (StatusCode, Value) {
    let path = format!("/v1/retention/{pattern}");
    json_of(
        api.request(Method::PUT, &path)
            .json(rule)
            .send()
            .await
            .unwrap(),
    )
    .await
}

/// Sets a rule.
pub async fn set(api: &Api, pattern: &str, days: i32) -> Value {
    let (status, answer) = try_set(api, pattern, &json!({ "days": days })).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn remove(api: &Api, pattern: &str) -> StatusCode {
    let path = format!("/v1/retention/{pattern}");
    api.request(Method::DELETE, &path)
        .send()
        .await
        .unwrap()
        .status()
}

async fn rules(api: &Api) -> Vec<(String, i64)> {
    let listed = api.get("/v1/retention").await;
    let rule = |rule: &Value| {
        (
            rule["pattern"].as_str().unwrap().to_owned(),
            rule["days"].as_i64().unwrap(),
        )
    };
    listed["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(rule)
        .collect()
}

#[tokio::test]
async fn rules_are_the_tenants_own_and_every_change_is_written_down() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    for (pattern, days) in [
        ("*", 30),
        ("a.*", 7),
        ("a.*.c", 400),
        ("a.b.c", 1),
        ("tidewire.audit.*", 365),
    ] {
        let rule = set(&acme, pattern, days).await;
        assert_eq!(
            (&rule["days"], &rule["changed_by"], &rule["removed"]),
            (&json!(days), &json!("test"), &json!(0))
        );
    }
    set(&acme, "*", 31).await;
    let expected = [
        ("tidewire.audit.*", 365),
        ("a.b.c", 1),
        ("a.*.c", 400),
        ("a.*", 7),
        ("*", 31),
    ];
    let mut listed = rules(&acme).await;
    let mut wanted: Vec<(String, i64)> = expected
        .iter()
        .map(|(p, d)| ((*p).to_owned(), *d))
        .collect();
    assert_eq!(
        listed[1..].iter().map(|(p, _)| p).collect::<Vec<_>>(),
        ["tidewire.audit.*", "a.*.c", "a.*", "*"]
    );
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
    assert!(rules(&beta).await.is_empty());
    assert_eq!(remove(&beta, "*").await, 404);
    assert_eq!(remove(&acme, "*").await, 204);
    assert_eq!(remove(&acme, "*").await, 404);
    let log = eventually(Duration::from_secs(5), || async {
        let log = all(&acme, Transport::Pages).await;
        let is_whole = log
            .last()
            .is_some_and(|event| event["topic"] == "tidewire.audit.retention.removed");
        if is_whole { Ok(log) } else { Err(log) }
    })
    .await;
    let told: Vec<_> = log
        .iter()
        .map(|event| event["topic"].as_str().unwrap())
        .collect();
    assert_eq!(
        told.iter()
            .filter(|topic| **topic == "tidewire.audit.retention.set")
            .count(),
        6
    );
    let last = log.last().unwrap();
    assert_eq!(
        (&last["topic"], &last["source"]),
        (&json!("tidewire.audit.retention.removed"), &json!("test"))
    );
    assert_eq!(last["data"], json!({"pattern": "*", "days": 31}));
    assert!(all(&beta, Transport::Pages).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_rule_is_refused() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    for (pattern, rule, status) in [
        ("*", json!({}), 400),
        ("*", json!({"days": 0}), 400),
        ("*", json!({"days": 36_501}), 400),
        ("*", json!({"days": 1.5}), 400),
        ("*", json!({"days": "1"}), 400),
        ("*", json!({"days": 1, "x": 1}), 400),
        ("A", json!({"days": 1}), 400),
        ("a..b", json!({"days": 1}), 400),
        ("tidewire.audit.*", json!({"days": 364}), 400),
        ("a%2Fb", json!({"days": 1}), 400),
        ("", json!({"days": 1}), 404),
    ] {
        let (got, answer) = try_set(&acme, pattern, &rule).await;
        assert_eq!(got, status, "{pattern} {rule}: {answer}");
    }
    let of = |claims: Claims| server.api.with_token(&issue(&claims));
    for role in [Role::Agent, Role::Dashboard, Role::Analyst] {
        let other = of(Claims {
            role,
            ..claims("acme")
        });
        assert_eq!(other.try_get("/v1/retention").await.0, 403);
        assert_eq!(try_set(&other, "*", &json!({"days": 1})).await.0, 403);
        assert_eq!(remove(&other, "*").await, 403);
    }
    let narrow = of(Claims {
        write: vec!["deal.*".into()],
        ..claims("acme")
    });
    assert_eq!(try_set(&narrow, "*", &json!({"days": 1})).await.0, 403);
    assert_eq!(
        try_set(&narrow, "deal.won", &json!({"days": 1})).await.0,
        200
    );
    for n in 0..99 {
        set(&acme, &format!("t{n}"), 1).await;
    }
    let (status, problem) = try_set(&acme, "one.more", &json!({"days": 1})).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (409, &json!("/problems/too-many"))
    );
    set(&acme, "t1", 2).await;
    server.stop().await;
}
