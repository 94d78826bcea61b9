//! What is held of a person, for the administrator who is asked for it.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire::access::{Claims, Role};

use super::fixture::{PERSON, all, erase, events};
use crate::support::credentials::{admin, create_key_with, revoke, revoke_key};
use crate::support::reader::Transport;
use crate::support::token::{WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb, eventually};

fn ids(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect()
}

async fn page(api: &Api, more: &str) -> Value {
    api.get(&format!("/v1/subjects/{PERSON}{more}")).await
}

#[tokio::test]
async fn all_that_is_held_is_shown_page_by_page_and_who_asked_is_written_down() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    acme.append(&events()).await;
    let first = page(&acme, "?limit=1").await;
    assert_eq!(
        (ids(&first), &first["has_more"]),
        (vec!["s3ntinel-1"], &json!(true))
    );
    assert_eq!(
        (&first["subject"], &first["held"]["events"]),
        (&json!(PERSON), &json!(2))
    );
    assert_eq!(
        first["held"]["first_recorded_at"],
        first["events"][0]["recorded_at"]
    );
    let cursor = first["cursor"].as_str().unwrap();
    let rest = page(&acme, &format!("?after={cursor}")).await;
    assert_eq!(
        (ids(&rest), &rest["has_more"]),
        (vec!["s3ntinel-2"], &json!(false))
    );
    let produced = page(&acme, "?part=source").await;
    assert_eq!(ids(&produced), ["s3ntinel-3", "s3ntinel-4"]);
    assert_eq!(
        ids(&page(&acme, "?part=source&limit=1").await),
        ["s3ntinel-3"]
    );
    let none = page(&beta, "").await;
    assert_eq!((ids(&none).len(), &none["held"]["events"]), (0, &json!(0)));
    // Each of these was written down, without the name.
    let log = all(&acme, Transport::Pages).await;
    let asked: Vec<&Value> = log
        .iter()
        .filter(|event| event["topic"] == "tidewire.audit.subject.read")
        .collect();
    assert_eq!(asked.len(), 4);
    assert!(
        asked
            .iter()
            .all(|event| event["source"] == "test" && !event.to_string().contains(PERSON))
    );
    erase(&acme, PERSON).await;
    for part in ["", "?part=source"] {
        let empty = page(&acme, part).await;
        assert_eq!(
            (ids(&empty).len(), &empty["held"]["events"]),
            (0, &json!(0))
        );
    }
    let hash = asked[0]["subject"].clone();
    let log = all(&acme, Transport::Pages).await;
    let erased = log
        .iter()
        .find(|event| event["topic"] == "tidewire.audit.subject.erased");
    assert_eq!(
        erased.unwrap()["subject"],
        hash,
        "one name for the person in all that is told of it"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_logs_own_events_about_a_person_are_shown_and_erased_but_not_who_did_it() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    revoke(&acme, &json!({"sub": PERSON})).await;
    let held = page(&acme, "").await;
    assert_eq!(held["events"][0]["topic"], "tidewire.audit.token.revoked");
    assert_eq!(erase(&acme, PERSON).await, 1);
    // Nor does whoever erases itself wipe away what it did.
    let did = "SELECT tidewire.append('tidewire.audit.events.read', '1', subject => 'test', source => 'test', tenant => 'acme')";
    db.connect().await.batch_execute(did).await.unwrap();
    assert_eq!(erase(&acme, "test").await, 0);
    let log = all(&acme, Transport::Pages).await;
    assert!(!json!(log).to_string().contains(PERSON), "{log:?}");
    assert!(log.iter().all(|event| event["source"] == "test"), "{log:?}");
    assert!(log[0]["erased_at"].is_string());
    assert!(log.iter().any(|event| event["subject"] == "test"));
    server.stop().await;
}

#[tokio::test]
async fn credentials_that_bear_the_name_are_shown_to_their_own_tenant() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let key = async |api: &Api, name: &str| {
        let key = json!({"name": name, "role": "agent", "read": [], "write": ["deal.*"]});
        create_key_with(api, &key).await
    };
    let theirs = key(&acme, PERSON).await;
    let ended = key(&acme, PERSON).await;
    key(&acme, "another").await;
    key(&beta, "another").await;
    revoke_key(&acme, &ended.0).await;
    for named in [
        json!({"sub": PERSON}),
        json!({"jti": PERSON}),
        json!({"sub": "another"}),
    ] {
        revoke(&acme, &named).await;
    }
    let held = page(&acme, "").await;
    let keys = held["credentials"]["api_keys"].as_array().unwrap();
    let mut ids: Vec<&Value> = keys.iter().map(|key| &key["id"]).collect();
    let mut wanted = [&json!(theirs.0), &json!(ended.0)];
    ids.sort_unstable_by_key(ToString::to_string);
    wanted.sort_unstable_by_key(ToString::to_string);
    assert_eq!(ids, wanted, "{held}");
    assert!(!held.to_string().contains(&theirs.1));
    let revoked = held["credentials"]["revocations"].as_array().unwrap();
    assert_eq!(revoked.len(), 1, "{held}");
    assert_eq!(
        (&revoked[0]["claim"], &revoked[0]["value"]),
        (&json!("sub"), &json!(PERSON))
    );
    let none = page(&beta, "").await;
    let nothing = json!({"api_keys": [], "has_more": false, "revocations": []});
    assert_eq!(none["credentials"], nothing);
    server.stop().await;
}

#[tokio::test]
async fn what_is_held_is_for_administrators_who_may_read_it() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    admin(&server, "acme").append(&events()).await;
    let of = |claims: Claims| server.api.with_token(&issue(&claims));
    let path = format!("/v1/subjects/{PERSON}");
    for role in [Role::Agent, Role::Dashboard, Role::Analyst] {
        let (status, _) = of(Claims {
            role,
            ..claims("acme")
        })
        .try_get(&path)
        .await;
        assert_eq!(status, 403, "{role:?}");
    }
    let narrow = Claims {
        read: vec!["deal.*".into()],
        ..claims("acme")
    };
    let (status, problem) = of(narrow).try_get(&path).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (403, &json!("/problems/forbidden-topic"))
    );
    for (query, status) in [
        ("?limit=0", 400),
        ("?limit=1001", 400),
        ("?part=all", 400),
        ("?after=latest", 400),
        ("?after=x", 400),
        ("?what=1", 400),
        ("?after=earliest&part=subject&limit=1000", 200),
    ] {
        let got = admin(&server, "acme")
            .try_get(&format!("{path}{query}"))
            .await;
        assert_eq!(got.0, status, "{query}: {}", got.1);
    }
    let written =
        "SELECT count(*) FROM tidewire.events WHERE topic = 'tidewire.audit.subject.read'";
    let written: i64 = db
        .connect()
        .await
        .query_one(written, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(written, 1, "what was refused showed nothing");
    server.stop().await;
}

#[tokio::test]
async fn api_keys_of_a_name_that_are_not_shown_are_said_to_be_there() {
    let db = TestDb::new().await;
    let insert = format!(
        "SET session_replication_role = replica;
         INSERT INTO tidewire.api_keys (key_id, tenant, name, role, read_topics, write_topics, secret_sha256)
         SELECT lpad(n::text, 16, '0'), tenant, name, 'agent', '{{*}}', '{{}}', sha256('x')
           FROM generate_series(1, 1002) AS n, LATERAL (SELECT CASE n % 1002 WHEN 0 THEN 'beta' ELSE 'acme' END, '{PERSON}') AS v(tenant, name)"
    );
    db.connect().await.batch_execute(&insert).await.unwrap();
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let (acme, beta) = (admin(&server, "acme"), admin(&server, "beta"));
    let credentials = page(&acme, "").await["credentials"].take();
    let keys = credentials["api_keys"].as_array().unwrap();
    assert_eq!(
        (keys.len(), &credentials["has_more"]),
        (1_000, &json!(true))
    );
    let last = keys[999]["id"].as_str().unwrap();
    let rest = acme
        .get(&format!("/v1/api-keys?name={PERSON}&after={last}"))
        .await;
    let rest = rest["api_keys"].as_array().unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0]["id"], "0000000000001001");
    let other = acme.get("/v1/api-keys?name=somebody").await;
    assert_eq!(other, json!({"api_keys": [], "has_more": false}));
    assert_eq!(acme.try_get("/v1/api-keys?name=").await.0, 400);
    let credentials = page(&beta, "").await["credentials"].take();
    let keys = credentials["api_keys"].as_array().unwrap();
    assert_eq!((keys.len(), &credentials["has_more"]), (1, &json!(false)));
    server.stop().await;
}

/// What a page has no room for is still on its way then: whoever gets the connection next does not wait behind it.
#[tokio::test]
async fn a_connection_with_the_rest_of_a_page_on_it_is_given_to_nobody() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let client = db.connect().await;
    let many = "INSERT INTO tidewire.events (tenant, topic, subject, source, data)
                SELECT 'acme', 'a', 'deal', $1, to_jsonb(repeat(md5(n::text), 8000)) FROM generate_series(1, 40) AS n";
    client.execute(many, &[&PERSON]).await.unwrap();
    let acme = admin(&server, "acme");
    let backends = async || -> Vec<i32> {
        let pids = "SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'tidewire history' ORDER BY pid";
        let rows = client.query(pids, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    eventually(Duration::from_secs(5), || async {
        let seen = page(&acme, "?part=source").await;
        (seen["has_more"] == true)
            .then_some(())
            .ok_or("not read yet")
    })
    .await;
    let before = backends().await;
    let cut = page(&acme, "?part=source").await;
    assert!(
        cut["events"].as_array().unwrap().len() < 40,
        "its bytes end it"
    );
    eventually(Duration::from_secs(5), || async {
        let now = backends().await;
        let is_left = before.iter().any(|pid| now.contains(pid));
        (!is_left).then_some(()).ok_or(now)
    })
    .await;
    server.stop().await;
}
