//! What administrators do to a running server: sockets that are idle, log lines for a while, and the command line for both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::client::json_of;
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Api, Process, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const DROP_IDLE: &str = "/v1/admin/sessions/drop-idle";
const LOG_LEVEL: &str = "/v1/admin/log-level";

async fn ask(api: &Api, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = api.request(method, path).json(body);
    json_of(request.send().await.unwrap()).await
}

fn operated_by_acme() -> Vec<&'static str> {
    [WITH_TOKENS, &["--operator-tenant", "acme"]].concat()
}

/// What the tenant's audit says was done, once it says so.
async fn audited(db: &TestDb, tenant: &str, topic: &str) -> Value {
    let select = "SELECT data FROM tidewire.events WHERE tenant = $1 AND topic = $2 ORDER BY seq";
    eventually(PATIENCE, || async {
        let rows = db.connect().await.query(select, &[&tenant, &topic]).await;
        let found: Option<Value> = rows.unwrap().last().map(|row| row.get(0));
        found.ok_or(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sockets_are_closed_those_of_the_tenant_alone() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &operated_by_acme()).await;
    let [acme, beta] = ["acme", "beta"].map(|tenant| server.api.with_token(&token(tenant)));
    let mut idle = beta.ws().await;
    let mut busy = beta.ws().await;
    busy.subscribe("s", &["a.*"], "latest").await;
    busy.until("live").await;
    let mut others = acme.ws().await;
    // Only heartbeats on the one, an event a moment ago on the other.
    let dropping = async {
        loop {
            beta.append(&json!({"topic": "a.b"})).await;
            busy.until("events").await;
            others.send(json!({"type": "ping", "timestamp": 1})).await;
            others.until("pong").await;
            idle.send(json!({"type": "ping", "timestamp": 1})).await;
            idle.until("pong").await;
            let wanted = json!({"idle_s": 2});
            let (status, answer) = ask(&beta, Method::POST, DROP_IDLE, &wanted).await;
            assert_eq!(status, 200, "{answer}");
            match answer["dropped"].as_u64().unwrap() {
                0 => {}
                dropped => return dropped,
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, dropping).await, Ok(1));
    assert_eq!(idle.close_code().await, 1001);
    for ws in [&mut busy, &mut others] {
        ws.send(json!({"type": "ping", "timestamp": 2})).await;
        ws.until("pong").await;
    }
    // All tenants' is for operators.
    let all = json!({"idle_s": 1, "all_tenants": true});
    let (status, refused) = ask(&beta, Method::POST, DROP_IDLE, &all).await;
    assert_eq!(
        (status.as_u16(), &refused["type"]),
        (403, &json!("/problems/forbidden"))
    );
    for bad in [
        json!({}),
        json!({"idle_s": 0}),
        json!({"idle_s": 5, "x": 1}),
    ] {
        let (status, _) = ask(&beta, Method::POST, DROP_IDLE, &bad).await;
        assert_eq!(status, 400, "{bad}");
    }
    let dropped = AtomicU64::new(0);
    eventually(PATIENCE, || async {
        let (status, answer) = ask(&acme, Method::POST, DROP_IDLE, &all).await;
        assert_eq!(status, 200, "{answer}");
        let more = answer["dropped"].as_u64().unwrap();
        let sum = dropped.fetch_add(more, Ordering::SeqCst) + more;
        (sum == 2).then_some(()).ok_or(sum)
    })
    .await;
    for ws in [&mut busy, &mut others] {
        assert_eq!(ws.close_code().await, 1001);
    }
    let topic = "tidewire.audit.admin.sessions.dropped";
    assert_eq!(
        audited(&db, "acme", topic).await["did"]["all_tenants"],
        true
    );
    let of_beta = audited(&db, "beta", topic).await;
    let did = json!({"idle_s": 2, "all_tenants": false, "dropped": 1});
    assert_eq!(of_beta["did"], did, "{of_beta}");
    server.stop().await;
}

/// What a log of JSON says.
struct Log(tempfile::NamedTempFile);

impl Log {
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.path()).unwrap();
        // The last line may be half written.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let parse = |line: &str| serde_json::from_str(line);
        let lines = whole
            .lines()
            .map(|line| parse(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        lines.collect()
    }

    fn requests(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["target"] == "tidewire::request");
        lines
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_lines_are_logged_for_a_while_and_every_line_is_whole() {
    let db = TestDb::new().await;
    let log = Log(tempfile::NamedTempFile::new().unwrap());
    let arguments = [operated_by_acme(), vec!["--log-json"]].concat();
    let file = log.0.reopen().unwrap();
    let mut server = Process::start_logging(&db.url, &arguments, file).await;
    let acme = server.api.with_token(&token("acme"));
    acme.append(&json!({"topic": "deal.won", "data": "s3ntinel"}))
        .await;
    let now = acme.get(LOG_LEVEL).await;
    let configured = json!({"filter": "info", "configured": "info", "left_s": null});
    assert_eq!(now, configured);
    assert_eq!(log.requests(), Vec::<Value>::new());
    for bad in ["tidewire=loud", "[request]=trace"] {
        let wanted = json!({"filter": bad, "for_s": 5});
        let (status, told) = ask(&acme, Method::PUT, LOG_LEVEL, &wanted).await;
        assert_eq!(
            (status.as_u16(), &told["type"]),
            (400, &json!("/problems/invalid-parameter"))
        );
    }
    // The talkative stay quiet, whatever is asked for, in whichever module.
    let filter = "info,tidewire=debug,h2=trace,tokio_postgres::connection=trace,tokio_postgres=trace,tungstenite::protocol=trace";
    let wanted = json!({"filter": filter, "for_s": 5});
    let (status, told) = ask(&acme, Method::PUT, LOG_LEVEL, &wanted).await;
    assert_eq!((status.as_u16(), &told["filter"]), (200, &json!(filter)));
    let left = told["left_s"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 5.0, "{left}");
    let mut ws = acme.ws().await;
    ws.send(json!({"type": "append", "ref": "r", "events": [{"topic": "deal.won", "data": "s3ntinel"}]}))
        .await;
    ws.until("appended").await;
    let request = acme
        .request(Method::GET, "/v1/subjects/s3ntinel")
        .header("x-request-id", "mine");
    assert_eq!(request.send().await.unwrap().status(), 200);
    eventually(PATIENCE, || async {
        let requests = log.requests();
        let of_subject = requests.iter().find(|line| line["request_id"] == "mine");
        let Some(line) = of_subject else {
            return Err(requests);
        };
        assert_eq!(line["message"], "answered", "{line}");
        assert_eq!(
            (&line["method"], &line["status"]),
            (&json!("GET"), &json!(200))
        );
        assert_eq!(line["route"], "/v1/subjects/{subject}", "{line}");
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
        Ok(())
    })
    .await;
    // It goes back by itself.
    eventually(PATIENCE, || async {
        let now = acme.get(LOG_LEVEL).await;
        (now == configured).then_some(()).ok_or(now)
    })
    .await;
    let before = log.requests().len();
    for _ in 0..5 {
        acme.get(LOG_LEVEL).await;
    }
    let did = audited(&db, "acme", "tidewire.audit.admin.log_level.set").await;
    assert_eq!(did["did"], wanted, "{did}");
    let returned = audited(&db, "acme", "tidewire.audit.admin.log_level.returned").await;
    assert_eq!(returned["did"], json!({"filter": "info"}), "{returned}");
    assert_eq!(returned["by"], did["by"]);
    server.terminate().await;
    assert_eq!(log.requests().len(), before);
    whole(&log.lines());
}

/// Each line has what a collector looks for, and none holds what nobody should read.
fn whole(lines: &[Value]) {
    assert!(lines.len() > 5, "{lines:?}");
    let mut levels = std::collections::BTreeSet::new();
    for line in lines {
        for name in ["timestamp", "level", "target", "message"] {
            let said = line[name].as_str().unwrap_or_default();
            assert!(!said.is_empty(), "{name}: {line}");
        }
        let time = chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap());
        assert!(time.is_ok(), "{line}");
        assert!(!line.to_string().contains("s3ntinel"), "{line}");
        let (level, target) = (
            line["level"].as_str().unwrap(),
            line["target"].as_str().unwrap(),
        );
        let is_talkative = ["h2", "tokio_postgres", "tungstenite"]
            .iter()
            .any(|name| target.starts_with(name));
        assert!(
            !is_talkative || !["DEBUG", "TRACE"].contains(&level),
            "{line}"
        );
        levels.insert(level.to_owned());
    }
    assert!(
        levels.contains("DEBUG") && levels.contains("WARN"),
        "{levels:?}"
    );
}

/// The program, on a server.
async fn program(api: &Api, arguments: &[&str]) -> (bool, String) {
    let said = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("admin")
        .args(arguments)
        .args(["--url", &api.url])
        .env("TIDEWIRE_TOKEN", token("acme"))
        .output()
        .await
        .unwrap();
    let [out, err] =
        [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (said.status.success(), out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_same() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, &operated_by_acme()).await;
    let answer = |said: &str| -> Value { serde_json::from_str(said).unwrap() };
    let (is_done, said) = program(&server.api, &["reset-breaker"]).await;
    assert!(is_done, "{said}");
    assert_eq!(answer(&said), json!({"was": "closed", "state": "closed"}));
    for all in [&["--all-tenants"][..], &[]] {
        let arguments = [&["drop-idle", "--idle-s", "60"], all].concat();
        let (is_done, said) = program(&server.api, &arguments).await;
        assert!(is_done, "{said}");
        assert_eq!(answer(&said), json!({"dropped": 0}));
    }
    for (action, is_paused) in [("pause", true), ("resume", false)] {
        let (is_done, said) = program(&server.api, &["consumer", action, "watch"]).await;
        assert!(is_done, "{said}");
        assert_eq!(answer(&said)["is_paused"], is_paused, "{said}");
    }
    let (is_done, said) = program(&server.api, &["consumer", "pause", "none"]).await;
    assert!(!is_done && said.contains("no consumer"), "{said}");
    let (is_done, said) = program(&server.api, &["log-level", "debug", "--for-s", "60"]).await;
    assert!(is_done, "{said}");
    assert_eq!(answer(&said)["filter"], "debug", "{said}");
    let (is_done, said) = program(&server.api, &["log-level"]).await;
    assert!(is_done && answer(&said)["left_s"].is_number(), "{said}");
    let (is_done, said) = program(&server.api, &["log-level", "tidewire=loud"]).await;
    assert!(!is_done && said.contains("log filter"), "{said}");
    server.stop().await;
}
