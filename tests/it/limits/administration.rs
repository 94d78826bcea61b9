//! Administrators: how often they may ask, and that one tenant's hold up nobody else's.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tidewire::access::{Claims, Role};
use tidewire::http::routes;

use super::{caller, header, server, structured, wait_as_told};
use crate::support::client::json_of;
use crate::support::token::{claims, issue};
use crate::support::{Api, TestDb, eventually};

/// Routes under `/v1/` that are not for administrators. Any other is, and has a rate.
const FOR_OTHERS: [&str; 5] = [
    "/v1/events",
    "/v1/ws",
    "/v1/agents/{id}/state",
    "/v1/agents/{id}/commands",
    "/v1/audit",
];

pub fn administrative() -> Vec<(&'static str, Method)> {
    let routes = routes()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/v1/") && !FOR_OTHERS.contains(path));
    let pairs = routes.flat_map(|(path, methods)| {
        let methods = methods.into_iter();
        methods.map(move |method| (path, method.parse().unwrap()))
    });
    pairs.collect()
}

/// A request whose path says what is another's.
async fn ask(api: &Api, (path, method): &(&str, Method)) -> Response {
    let path = path
        .replace("{id}", "0123456789abcdef")
        .replace("{pattern}", "s3ntinel.x")
        .replace("{subject}", "s3ntinel");
    let request = api.request(method.clone(), &path).json(&json!({}));
    request.send().await.unwrap()
}

#[tokio::test]
async fn every_administrative_route_has_a_rate_that_is_its_tenants_own() {
    let db = TestDb::new().await;
    let server = server(&db, &["--tenant-administration-rate", "1:2"]).await;
    let owner = caller(&server, "acme", "s3ntinel");
    owner
        .append(&json!({"topic": "s3ntinel.x", "subject": "s3ntinel", "data": "s3ntinel"}))
        .await;
    let routes = administrative();
    assert!(routes.len() >= 15, "{routes:?}");
    for (n, route) in routes.iter().enumerate() {
        let tenant = format!("t{n}");
        let agent = issue(&Claims {
            role: Role::Agent,
            ..claims(&tenant)
        });
        let agent = server.api.with_token(&agent);
        for _ in 0..5 {
            let status = ask(&agent, route).await.status();
            assert_eq!(status, 403, "{route:?}: it takes nothing of its tenant's");
        }
        let admin = caller(&server, &tenant, "one");
        let first = ask(&admin, route).await;
        assert_ne!(first.status(), 429, "{route:?}");
        let policy = header(&first, "ratelimit-policy");
        assert_eq!(policy, "\"tenant-administration\";q=2;w=2", "{route:?}");
        structured(&header(&first, "ratelimit"));
        let mut refused = None;
        for _ in 0..50 {
            // By another credential too: it is the tenant's.
            let answer = ask(&caller(&server, &tenant, "two"), route).await;
            if answer.status() == 429 {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{route:?} has no rate"));
        assert_eq!(header(&refused, "ratelimit-policy"), policy);
        assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
        if route.1 == Method::HEAD {
            continue;
        }
        let (_, problem) = json_of(refused).await;
        assert_eq!(problem["type"], "/problems/rate-limited", "{problem}");
        let said = problem.to_string();
        assert!(
            !said.contains("s3ntinel") && !said.contains("acme"),
            "{said}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn whoever_is_refused_comes_back_as_told_and_sockets_count_as_well() {
    let db = TestDb::new().await;
    let limits = [
        "--tenant-administration-rate",
        "100",
        "--credential-administration-rate",
        "1:1",
    ];
    let server = server(&db, &limits).await;
    let admin = caller(&server, "acme", "one");
    let mut ws = admin.ws().await;
    let mut refused = None;
    for _ in 0..50 {
        let answer = admin
            .request(Method::GET, "/v1/retention")
            .send()
            .await
            .unwrap();
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    ws.send(json!({"type": "get_status"})).await;
    let refused = refused.expect("its own rate");
    loop {
        let answer = ws.next().await.unwrap().unwrap();
        if answer["type"] == "error" {
            assert_eq!(answer["code"], "rate-limited", "{answer}");
            break;
        }
        // A token had come back meanwhile.
        assert_eq!(answer["type"], "status");
        ws.send(json!({"type": "get_status"})).await;
    }
    let other = caller(&server, "acme", "two");
    assert_eq!(other.try_get("/v1/retention").await.0, 200);
    wait_as_told(&refused).await;
    assert_eq!(admin.try_get("/v1/retention").await.0, 200);
    // What is not administration has no such rate.
    for _ in 0..20 {
        admin.append(&json!({"topic": "a.b"})).await;
    }
    server.stop().await;
}

/// One tenant's crowd before the places of administration, all of which are held up in the database.
#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_crowd_waits_for_itself_alone() {
    let db = TestDb::new().await;
    let server = server(&db, &[]).await;
    let (loud, quiet) = (caller(&server, "loud", "a"), caller(&server, "quiet", "a"));
    quiet
        .append(&json!([{"topic": "a.b", "subject": "person"}, {"topic": "a.c"}]))
        .await;
    // Erasures wait here, readers and writers do not.
    let client = db.connect().await;
    client
        .batch_execute("BEGIN; LOCK TABLE tidewire.erasures IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..100 {
        let request = loud.request(Method::DELETE, &format!("/v1/subjects/p{n}"));
        crowd.spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            if status == 429 {
                assert!(header(&answer, "retry-after").parse::<u64>().unwrap() >= 1);
            }
            status
        });
    }
    // One has the place and 32 wait; the others are told at once.
    for _ in 0..67 {
        let status = tokio::time::timeout(Duration::from_secs(20), crowd.join_next()).await;
        assert_eq!(status.unwrap().unwrap().unwrap(), 429);
    }
    // Nobody else notices, whatever it asks for.
    for path in [
        "/v1/retention",
        "/v1/status",
        "/v1/api-keys",
        "/v1/events?since=2020-01-01T00:00:00Z",
    ] {
        assert_eq!(quiet.try_get(path).await.0, 200, "{path}");
    }
    let erasing = {
        let request = quiet.request(Method::DELETE, "/v1/subjects/person");
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        tokio::spawn(async move { json_of(request.send().await.unwrap()).await })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'tidewire.erasures'::regclass AND NOT granted";
    eventually(Duration::from_secs(10), || async {
        let count: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    client.batch_execute("COMMIT").await.unwrap();
    let (status, answer) = erasing.await.unwrap();
    assert_eq!(
        (status.as_u16(), &answer["events"]),
        (200, &json!(1)),
        "{answer}"
    );
    let done: i64 = client
        .query_one(
            "SELECT count(*) FROM tidewire.erasures WHERE tenant = 'loud' AND ended_at IS NOT NULL",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(done <= 16, "{done} of the crowd had their turn first");
    while let Some(status) = crowd.join_next().await {
        let status = status.unwrap();
        assert!(status == 200 || status == 503, "{status}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_script_that_sets_up_a_tenant_is_not_refused_by_default() {
    let db = TestDb::new().await;
    let server = server(&db, &[]).await;
    let admin = caller(&server, "acme", "one");
    for n in 0..200 {
        let name = json!({"name": format!("agent-{n}"), "role": "agent"});
        let request = admin.request(Method::POST, "/v1/api-keys").json(&name);
        assert_eq!(request.send().await.unwrap().status(), 201);
    }
    let limits: Value = admin.get("/v1/status").await["limits"].clone();
    let shown = json!({"per_second": 50, "burst": 1000});
    assert_eq!(limits["tenant"]["administration"], shown);
    server.stop().await;
}
