//! Every route.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidewire::http::routes;

use super::credentials::{ROLES, SENTINEL, Setting, create_key, narrow, valid};
use crate::support::Api;
use crate::support::credentials::revoke;
use crate::support::sql::rows_of;

/// Whom a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Anybody, with or without a credential.
    All,
    /// Who may read the topic.
    Readers,
    /// Who may write the topic: no analyst may.
    Writers,
    /// Administrators of the tenant.
    Administrators,
    /// Those of them who may read and write whatever the tenant has.
    Owners,
    /// Administrators of the operators' tenant.
    Operators,
}

/// One request, and what it is answered to those it is for.
struct Row {
    method: &'static str,
    /// As in the route table; what stands in braces is replaced.
    path: &'static str,
    query: &'static str,
    accept: &'static str,
    body: Value,
    is_for: For,
    answers: &'static [u16],
}

fn row(method: &'static str, path: &'static str, is_for: For, answers: &'static [u16]) -> Row {
    Row {
        method,
        path,
        query: "",
        accept: "*/*",
        body: Value::Null,
        is_for,
        answers,
    }
}

impl Row {
    fn with(self, body: Value) -> Self {
        Self { body, ..self }
    }

    fn asking(self, query: &'static str) -> Self {
        Self { query, ..self }
    }

    fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }
}

/// All rows: whoever may GET may HEAD.
fn rows() -> Vec<Row> {
    let mut rows = rows_of_methods();
    let heads = rows
        .iter()
        .filter(|row| row.method == "GET" && row.path != "/v1/ws");
    let heads: Vec<Row> = heads
        .map(|row| Row {
            method: "HEAD",
            body: Value::Null,
            ..*row
        })
        .collect();
    rows.extend(heads);
    rows
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows_of_methods() -> Vec<Row> {
    use For::{Administrators, All, Operators, Owners, Readers, Writers};
    vec![
        row("GET", "/", All, &[200]),
        row("GET", "/openapi.json", All, &[200]),
        row("GET", "/asyncapi.json", All, &[200]),
        row("GET", "/livez", All, &[200]),
        row("GET", "/readyz", All, &[200]),
        row("GET", "/problems", All, &[200]),
        row("GET", "/problems/{code}", All, &[200]),
        row("GET", "/v1/events", Readers, &[200]).asking("?topics=deal.won"),
        row("GET", "/v1/events", Readers, &[200])
            .asking("?topics=deal.won&after=earliest&limit=1")
            .accepting("application/msgpack"),
        row("GET", "/v1/events", Readers, &[200]).asking("?topics=deal.*&after=latest&wait=0.05"),
        row("GET", "/v1/events", Readers, &[200])
            .asking("?topics=deal.*&after=latest")
            .accepting("text/event-stream"),
        row("GET", "/v1/events", Administrators, &[200]).asking("?topics=tidewire.audit.*"),
        row("POST", "/v1/events", Writers, &[201]).with(json!({"topic": "deal.won"})),
        row("POST", "/v1/events", Writers, &[201])
            .with(json!([{"topic": "deal.won"}, {"topic": "agent.x"}])),
        row("PUT", "/v1/agents/{id}/state", Writers, &[201]).with(json!({"a": 1})),
        row("PATCH", "/v1/agents/{id}/state", Writers, &[201]).with(json!({"a": 1})),
        row("POST", "/v1/agents/{id}/commands", Writers, &[201]).with(json!({"action": "stop"})),
        row("GET", "/v1/audit", Readers, &[200]).asking("?topics=deal.won"),
        // What is no upgrade is told so, after it was asked who it is.
        row("GET", "/v1/ws", Readers, &[400]),
        row("GET", "/v1/api-keys", Administrators, &[200]),
        row("POST", "/v1/api-keys", Administrators, &[201])
            .with(json!({"name": "n", "role": "agent"})),
        row("DELETE", "/v1/api-keys/{id}", Administrators, &[204]),
        row("GET", "/v1/revocations", Administrators, &[200]),
        row("POST", "/v1/revocations", Administrators, &[201]).with(json!({"jti": "nobody's"})),
        row("DELETE", "/v1/revocations/{claim}/{value}", Owners, &[204]),
        row("GET", "/v1/settings", Administrators, &[200]),
        row("PATCH", "/v1/settings", Owners, &[200]).with(json!({"topic_mode": "open"})),
        row("GET", "/v1/topics", Administrators, &[200]),
        row("PUT", "/v1/topics/{pattern}", Owners, &[204]).with(json!({})),
        row("DELETE", "/v1/topics/{pattern}", Owners, &[204]),
        row("GET", "/v1/subjects/{subject}", Owners, &[200]),
        row("DELETE", "/v1/subjects/{subject}", Owners, &[200]),
        row("GET", "/v1/retention", Administrators, &[200]),
        row("PUT", "/v1/retention/{pattern}", Owners, &[200]).with(json!({"days": 30})),
        row("DELETE", "/v1/retention/{pattern}", Owners, &[204]),
        row("GET", "/v1/watches", Administrators, &[200]),
        row("GET", "/v1/watches/{name}", Owners, &[200]),
        row("PUT", "/v1/watches/{name}", Owners, &[200])
            .with(json!({"topics": ["deal.*"], "within_s": 60})),
        row("DELETE", "/v1/watches/{name}", Owners, &[204]),
        row("GET", "/v1/status", Administrators, &[200]),
        row("GET", "/metrics", Administrators, &[200]),
        row("POST", "/v1/admin/breaker/reset", Operators, &[200]),
        // Who is let in is told that there is no such type; what there is takes long.
        row("POST", "/v1/validate", Operators, &[400]).with(json!({"type": "none"})),
        row(
            "POST",
            "/v1/admin/sessions/drop-idle",
            Administrators,
            &[200],
        )
        .with(json!({"idle_s": 86_400})),
        row("POST", "/v1/admin/sessions/drop-idle", Operators, &[200])
            .with(json!({"idle_s": 86_400, "all_tenants": true})),
        row(
            "POST",
            "/v1/admin/consumers/{name}/pause",
            Operators,
            &[200],
        ),
        row(
            "POST",
            "/v1/admin/consumers/{name}/resume",
            Operators,
            &[200],
        ),
        row("GET", "/v1/admin/log-level", Operators, &[200]),
        row("PUT", "/v1/admin/log-level", Operators, &[200])
            .with(json!({"filter": "info", "for_s": 60})),
    ]
}

/// Whether topics that are granted matter: administrators see what is theirs to administer whatever they read.
fn asks_for_topics(row: &Row) -> bool {
    matches!(row.is_for, For::Readers | For::Writers) && row.path != "/v1/ws"
}

#[test]
fn every_route_has_a_row() {
    let served: BTreeSet<(String, String)> = routes()
        .into_iter()
        .flat_map(|(path, methods)| {
            let methods = methods.into_iter();
            methods.map(move |method| (method.to_owned(), path.to_owned()))
        })
        .collect();
    let with_a_row: BTreeSet<(String, String)> = rows()
        .iter()
        .map(|row| (row.method.to_owned(), row.path.to_owned()))
        .collect();
    assert_eq!(served, with_a_row, "say in `rows` whom the route is for");
}

/// The request's path: ids are of what `api` has made for it, or of `acme`'s own.
fn path(row: &Row, id: &str) -> String {
    let path = row
        .path
        .replace("{code}", "forbidden")
        .replace("{claim}", "jti")
        .replace("{value}", id)
        .replace("{pattern}", id)
        .replace("{subject}", id)
        .replace("{name}", id);
    let path = if row.path.starts_with("/v1/agents") {
        path.replace("{id}", "a-1")
    } else {
        path.replace("{id}", id)
    };
    format!("{path}{}", row.query)
}

async fn ask(api: &Api, row: &Row, id: &str) -> (StatusCode, String) {
    let method: Method = row.method.parse().unwrap();
    let mut request = api
        .request(method, &path(row, id))
        .header("accept", row.accept);
    if !row.body.is_null() {
        request = request.json(&row.body);
    }
    let mut response = request.send().await.unwrap();
    let status = response.status();
    if row.accept == "text/event-stream" && row.method == "GET" && status == 200 {
        // It would not end.
        let first = response.chunk().await.unwrap().unwrap();
        return (status, String::from_utf8_lossy(&first).into_owned());
    }
    (
        status,
        String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned(),
    )
}

/// What the path's id stands for, made anew: it is deleted by who may.
async fn own_id(setting: &Setting, row: &Row, tenant: &str) -> String {
    let admin = setting.api(&valid(tenant, "admin"));
    match row.path {
        "/v1/api-keys/{id}" => create_key(&admin, "short-lived").await.0,
        "/v1/revocations/{claim}/{value}" => {
            revoke(&admin, &json!({"jti": "short-lived"})).await;
            "short-lived".to_owned()
        }
        "/v1/topics/{pattern}" => {
            let declare = admin
                .request(Method::PUT, "/v1/topics/deal.short")
                .json(&json!({}));
            assert_eq!(declare.send().await.unwrap().status(), 204);
            "deal.short".to_owned()
        }
        "/v1/retention/{pattern}" => {
            let rule = admin
                .request(Method::PUT, "/v1/retention/short.*")
                .json(&json!({"days": 9}));
            assert_eq!(rule.send().await.unwrap().status(), 200);
            "short.*".to_owned()
        }
        "/v1/admin/consumers/{name}/pause" | "/v1/admin/consumers/{name}/resume" => {
            "watch".to_owned()
        }
        "/v1/watches/{name}" => {
            let watch = admin
                .request(Method::PUT, "/v1/watches/short")
                .json(&json!({"topics": ["deal.*"], "within_s": 9}));
            assert_eq!(watch.send().await.unwrap().status(), 200);
            "short".to_owned()
        }
        _ => "person-1".to_owned(),
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for_and_nothing_else() {
    let setting = Setting::new().await;
    for row in rows() {
        for role in ROLES {
            for (kind, credential) in [
                ("granted", valid("acme", role)),
                ("not granted", narrow("acme", role)),
            ] {
                let id = own_id(&setting, &row, "acme").await;
                let (status, body) = ask(&setting.api(&credential), &row, &id).await;
                let is_let_in = match row.is_for {
                    For::All => true,
                    For::Readers => kind == "granted" || !asks_for_topics(&row),
                    For::Writers => role != "analyst" && kind == "granted",
                    For::Administrators | For::Operators => role == "admin",
                    For::Owners => role == "admin" && kind == "granted",
                };
                let what = format!(
                    "{} {} as {role}, {kind}: {status} {body:.300}",
                    row.method, row.path
                );
                if is_let_in {
                    assert!(row.answers.contains(&status.as_u16()), "{what}");
                } else {
                    assert_eq!(status, 403, "{what}");
                }
            }
        }
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn no_credential_that_is_not_valid_lets_anybody_in() {
    let setting = Setting::new().await;
    for role in ROLES {
        let mut bad = setting.bad(role).await;
        bad.push(("none", String::new()));
        for row in rows() {
            for (kind, credential) in &bad {
                let api = if credential.is_empty() {
                    setting.server.api.clone()
                } else {
                    setting.api(credential)
                };
                let (status, body) = ask(&api, &row, "deal.x").await;
                let what = format!(
                    "{} {} as {role}, {kind}: {status} {body:.300}",
                    row.method, row.path
                );
                if row.is_for == For::All {
                    assert!(row.answers.contains(&status.as_u16()), "{what}");
                } else {
                    assert_eq!(status, 401, "{what}");
                    assert!(!body.contains(SENTINEL) && !body.contains("acme"), "{what}");
                }
            }
        }
    }
    // In the URL, where it counts.
    for (kind, credential) in setting.bad("admin").await {
        for path in ["/v1/ws?token=", "/v1/events?topics=deal.*&token="] {
            let request = setting
                .server
                .api
                .request(Method::GET, &format!("{path}{credential}"));
            let answer = request
                .header("accept", "text/event-stream")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 401, "{path} {kind}");
        }
    }
    setting.server.stop().await;
}

#[tokio::test]
async fn another_tenant_sees_and_changes_nothing() {
    let setting = Setting::new().await;
    let before = everything(&setting).await;
    // Before beta makes any of its own under these names.
    let (deletes, others): (Vec<Row>, Vec<Row>) =
        rows().into_iter().partition(|row| row.method == "DELETE");
    let mut is_there = Vec::new();
    for row in deletes.into_iter().chain(others) {
        for role in ROLES {
            let id = match row.path {
                "/v1/api-keys/{id}" => setting.key_id.clone(),
                "/v1/subjects/{subject}" => SENTINEL.to_owned(),
                _ => format!("deal.{SENTINEL}"),
            };
            let (status, body) = ask(&setting.api(&valid("beta", role)), &row, &id).await;
            let what = format!("{} {} as beta's {role}: {status}", row.method, row.path);
            assert_ne!(status, 401, "{what}");
            if row.is_for == For::Operators {
                assert_eq!(status, 403, "{what}");
            }
            // What beta itself named may be named to it.
            let body = body
                .replace(&format!("deal.{SENTINEL}"), "")
                .replace(&format!("{{\"subject\":\"{SENTINEL}\""), "");
            assert!(!body.contains(SENTINEL), "{what}: {body:.300}");
            // Of a subject nothing is left in any case.
            let is_any_ones = row.path == "/v1/subjects/{subject}";
            if row.method == "DELETE" && role == "admin" && !is_any_ones && status != 404 {
                is_there.push(what);
            }
        }
    }
    assert!(is_there.is_empty(), "not 404: {is_there:#?}");
    assert_eq!(
        everything(&setting).await,
        before,
        "acme's own has not changed"
    );
    let (status, _) = setting
        .api(&setting.key)
        .try_get("/v1/events?topics=deal.*")
        .await;
    assert_eq!(status, 200, "its key is in force");
    setting.server.stop().await;
}

/// All rows of `acme`, as text.
pub async fn everything(setting: &Setting) -> Vec<String> {
    let client = setting.db.connect().await;
    let all = rows_of(&client, "acme").await;
    assert!(all.len() >= 5, "{all:?}");
    all
}
