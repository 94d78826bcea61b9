//! Rules of many tenants: each has its turn, whatever the others do, and nothing that is due is missed however rules change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tidewire::event::TopicPattern;
use tokio_postgres::Client;

use super::retention::store;
use crate::support::credentials::admin;
use crate::support::token::WITH_TOKENS;
use crate::support::{Server, TestDb, eventually};

const DAY: i32 = 86_400;

/// Events of a tenant, one a topic, so many days old and falling by one.
async fn store_many(client: &Client, tenant: &str, topics: &[&str], days: i32) {
    client
        .execute(
            "SELECT set_config('session_replication_role', 'replica', false)",
            &[],
        )
        .await
        .unwrap();
    client
        .execute(
            "INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
             SELECT clock_timestamp() - make_interval(days => $2::integer - n), $1, n::text, ($3::text[])[1 + n % cardinality($3::text[])]
               FROM generate_series(0, $2::integer - 1) AS n",
            &[&tenant, &days, &topics],
        )
        .await
        .unwrap();
    client
        .execute(
            "SELECT set_config('session_replication_role', 'origin', false)",
            &[],
        )
        .await
        .unwrap();
}

/// One call of a round of its own; whether it is complete.
async fn call(client: &Client, rows: i32) -> bool {
    let call = "SELECT is_complete FROM tidewire.apply_retention($1, clock_timestamp())";
    client.query_one(call, &[&rows]).await.unwrap().get(0)
}

/// Ids of the tenant's events that are kept.
async fn kept(client: &Client, tenant: &str) -> BTreeSet<String> {
    let kept = "SELECT id FROM tidewire.events WHERE tenant = $1 AND erased_at IS NULL AND NOT starts_with(topic, 'tidewire.')";
    let rows = client.query(kept, &[&tenant]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn tenants_that_keep_changing_many_rules_keep_no_other_waiting() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for greedy in ["a", "b"] {
        store_many(&client, greedy, &["x"], 60).await;
    }
    store(&client, "z", "x", 9 * DAY, "due").await;
    client
        .batch_execute(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('z', '*', 2)",
        )
        .await
        .unwrap();
    // Made anew each time: each goes through all events of its tenant, more than a call looks at.
    let anew = "DELETE FROM tidewire.retention_rules WHERE tenant IN ('a', 'b');
        INSERT INTO tidewire.retention_rules (tenant, pattern, days)
        SELECT t, 'p' || n, 1 + n FROM unnest('{a,b}'::text[]) AS t, generate_series(1, 100) AS n";
    for round in 1.. {
        client.batch_execute(anew).await.unwrap();
        assert!(!call(&client, 50).await);
        if kept(&client, "z").await.is_empty() {
            break;
        }
        assert!(round < 3, "one round each, and then it is z's turn");
    }
    // Nor do a tenant's own rules keep another of its own waiting.
    client
        .batch_execute(
            "DELETE FROM tidewire.retention_rules WHERE tenant = 'a';
             INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('b', 'x', 1)",
        )
        .await
        .unwrap();
    let changed =
        "UPDATE tidewire.retention_rules SET days = days + 1 WHERE tenant = 'b' AND pattern <> 'x';
        DELETE FROM tidewire.retention_rules WHERE tenant = 'b' AND pattern = 'p1';
        INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('b', 'p1', 1)";
    // Each of its 101 rules takes two calls.
    for round in 1.. {
        client.batch_execute(changed).await.unwrap();
        call(&client, 50).await;
        if kept(&client, "b").await.is_empty() {
            break;
        }
        assert!(round < 210, "each rule in its turn");
    }
}

/// What a change owes and no more: the days of a rule have nothing looked at again, its end only what it has kept from others.
#[tokio::test]
async fn a_change_begins_only_those_anew_that_may_count_for_more() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    store_many(&client, "a", &["a.b", "b", "b.c"], 30).await;
    client
        .batch_execute(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES
                ('a', '*', 1), ('a', 'a.*', 1), ('a', 'a.b', 20), ('a', 'a.b.c', 2), ('a', 'b', 1), ('a', '*.c', 1), ('y', 'a.*', 1)",
        )
        .await
        .unwrap();
    while !call(&client, 7).await {}
    let begun = async || -> Vec<String> {
        let begun = "SELECT pattern FROM tidewire.retention_rules WHERE tenant = 'a' AND applied_seq = 0 ORDER BY 1";
        let rows = client.query(begun, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert!(begun().await.is_empty());
    for (change, wanted) in [
        (
            "UPDATE tidewire.retention_rules SET days = 10 WHERE tenant = 'a' AND pattern = 'a.b'",
            &[][..],
        ),
        (
            "UPDATE tidewire.retention_rules SET days = 25 WHERE tenant = 'a' AND pattern = 'a.b'",
            &[],
        ),
        (
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('a', 'b.c', 1)",
            &["b.c"],
        ),
        (
            "UPDATE tidewire.retention_rules SET changed_by = 'me' WHERE tenant = 'a'",
            &["b.c"],
        ),
        (
            "DELETE FROM tidewire.retention_rules WHERE tenant = 'a' AND pattern = 'a.b'",
            &["*", "a.*", "b.c"],
        ),
        (
            "DELETE FROM tidewire.retention_rules WHERE tenant = 'y'",
            &["*", "a.*", "b.c"],
        ),
    ] {
        client.batch_execute(change).await.unwrap();
        assert_eq!(begun().await, wanted, "{change}");
    }
}

/// How exact a pattern is, as it is written in docs/PROTOCOL.md: a larger one wins.
fn exactness(pattern: &str) -> Vec<u8> {
    let segments: Vec<_> = pattern.split('.').collect();
    let last = segments.len() - 1;
    let weigh = |(n, segment): (usize, &&str)| match (*segment, n == last) {
        ("*", true) => 1,
        ("*", false) => 2,
        _ => 3,
    };
    segments.iter().enumerate().map(weigh).collect()
}

/// Which events these rules keep no longer.
fn due(rules: &BTreeMap<&'static str, i32>, topics: &[&str], days: i32) -> BTreeSet<String> {
    let is_due = |n: &i32| {
        let topic = topics[usize::try_from(*n).unwrap() % topics.len()];
        let stands = |pattern: &&str| TopicPattern::parse(pattern).unwrap().matches(topic);
        let standing = rules.keys().filter(|pattern| stands(pattern));
        let counts = standing.max_by_key(|pattern| exactness(pattern));
        counts.is_some_and(|pattern| days - n >= rules[pattern])
    };
    (0..days).filter(is_due).map(|n| n.to_string()).collect()
}

/// Rules that change at random, between batches: what is due in the end goes, and nothing that was never due.
#[tokio::test]
async fn however_rules_change_all_that_is_due_goes_in_the_end_and_nothing_else() {
    const TOPICS: [&str; 5] = ["a", "a.b", "a.b.c", "b", "b.c"];
    const PATTERNS: [&str; 8] = ["*", "a.*", "a.b", "a.*.c", "b", "*.c", "a.b.c", "b.*"];
    const DAYS: i32 = 40;
    let db = TestDb::new().await;
    let client = db.connect().await;
    for seed in 0..24_u64 {
        let tenant = format!("t{seed}");
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        store_many(&client, &tenant, &TOPICS, DAYS).await;
        let mut rules = BTreeMap::new();
        let mut ever_due = BTreeSet::new();
        for _ in 0..25 {
            let pattern = PATTERNS[random(PATTERNS.len())];
            match random(4) {
                0 | 1 => {
                    let days = i32::try_from(1 + random(45)).unwrap();
                    let set = "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ($1, $2, $3)
                        ON CONFLICT (tenant, pattern) DO UPDATE SET days = excluded.days";
                    client
                        .execute(set, &[&tenant, &pattern, &days])
                        .await
                        .unwrap();
                    rules.insert(pattern, days);
                }
                2 => {
                    let remove =
                        "DELETE FROM tidewire.retention_rules WHERE tenant = $1 AND pattern = $2";
                    client.execute(remove, &[&tenant, &pattern]).await.unwrap();
                    rules.remove(pattern);
                }
                _ => {
                    ever_due.extend(due(&rules, &TOPICS, DAYS));
                    call(&client, i32::try_from(1 + random(30)).unwrap()).await;
                }
            }
        }
        let due = due(&rules, &TOPICS, DAYS);
        ever_due.extend(due.iter().cloned());
        while !call(&client, 100).await {}
        let kept = kept(&client, &tenant).await;
        let missed: Vec<_> = kept.intersection(&due).collect();
        assert!(missed.is_empty(), "{seed}: {rules:?} {missed:?}");
        for n in 0..DAYS {
            let id = n.to_string();
            let is_right = kept.contains(&id) || ever_due.contains(&id);
            assert!(is_right, "{seed}: {rules:?} never said so of {id}");
        }
    }
}

/// Changes of a tenant's rules at once, beside rounds: none is refused, and no round is given up.
#[tokio::test(flavor = "multi_thread")]
async fn rules_may_be_changed_at_once_and_while_they_are_applied() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    store_many(&client, "acme", &["a", "b"], 300).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let acme = admin(&server, "acme");
        workers.spawn(async move {
            for n in 0..25 {
                let pattern = ["*", "a", "b", "*.c"][(worker + n) % 4];
                let path = format!("/v1/retention/{pattern}");
                let put = acme
                    .request(Method::PUT, &path)
                    .json(&json!({"days": 300 - n}));
                let status = put.send().await.unwrap().status();
                assert_eq!(status, 200, "PUT {pattern}");
                let status = acme
                    .request(Method::DELETE, &path)
                    .send()
                    .await
                    .unwrap()
                    .status();
                assert!(status == 204 || status == 404, "DELETE {pattern}: {status}");
            }
        });
    }
    let mut calls = 0;
    while !workers.is_empty() {
        call(&client, 20).await;
        calls += 1;
        while let Some(done) = workers.try_join_next() {
            done.unwrap();
        }
    }
    assert!(calls > 1);
    server.stop().await;
}

/// With many rules: a call of a round ends in time, the round goes on where it ended, and each is gone through once.
#[tokio::test]
async fn a_round_goes_through_each_rule_once() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    store_many(&client, "a", &["x"], 3).await;
    client
        .batch_execute(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days)
             SELECT 't' || t, 'p' || n, 1 FROM generate_series(1, 20) AS t, generate_series(1, 5) AS n",
        )
        .await
        .unwrap();
    let through = "SELECT count(*), min(through_at), max(through_at) FROM tidewire.retention_rules WHERE through_at >= $1";
    let now: chrono::DateTime<chrono::Utc> = client
        .query_one("SELECT clock_timestamp()", &[])
        .await
        .unwrap()
        .get(0);
    let apply = "SELECT is_complete FROM tidewire.apply_retention(5000, $1)";
    while !client
        .query_one(apply, &[&now])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {}
    let row = client.query_one(through, &[&now]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 100);
    let last: chrono::DateTime<chrono::Utc> = row.get(2);
    assert!(
        client
            .query_one(apply, &[&now])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    let row = client.query_one(through, &[&now]).await.unwrap();
    assert_eq!(
        row.get::<_, chrono::DateTime<chrono::Utc>>(2),
        last,
        "none is looked at again"
    );
}

/// A rule that has ended at an event rests until that is of age; then, and when its days become fewer, it goes on.
#[tokio::test]
async fn a_rule_rests_until_there_is_something_to_look_at() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    store(&client, "a", "x", 9 * DAY, "old").await;
    store(&client, "a", "x", 3 * DAY - 1, "nearly").await;
    store(&client, "a", "x", DAY + 60, "younger").await;
    let set = "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('a', 'x', 3)";
    client.batch_execute(set).await.unwrap();
    let looked = async || -> chrono::DateTime<chrono::Utc> {
        let looked = "SELECT looked_at FROM tidewire.retention_rules";
        client.query_one(looked, &[]).await.unwrap().get(0)
    };
    let younger = BTreeSet::from(["younger".to_owned()]);
    eventually(Duration::from_secs(10), || async {
        assert!(call(&client, 5000).await);
        let kept = kept(&client, "a").await;
        if kept == younger { Ok(()) } else { Err(kept) }
    })
    .await;
    let last = looked().await;
    assert!(call(&client, 5000).await);
    assert_eq!(looked().await, last, "it has nothing before it");
    let by_hand = "SELECT tidewire.apply_retention()";
    client.batch_execute(by_hand).await.unwrap();
    assert!(looked().await > last);
    let fewer = "UPDATE tidewire.retention_rules SET days = 1";
    client.batch_execute(fewer).await.unwrap();
    call(&client, 5000).await;
    assert!(kept(&client, "a").await.is_empty());
}
