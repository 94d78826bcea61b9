//! `/metrics`: who may read it, what stands in it, and that Prometheus can.

use std::collections::BTreeMap;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Api, Server, TestDb, eventually};

/// Every series with its value.
fn series(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.to_owned())
    });
    pairs.collect()
}

pub async fn text(api: &Api) -> String {
    let answer = api.request(reqwest::Method::GET, "/metrics");
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(
        answer.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    answer.text().await.unwrap()
}

/// What `script/promtool` provides.
pub fn promtool() -> String {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests")]
    let path = std::env::var("TIDEWIRE_PROMTOOL");
    path.expect("TIDEWIRE_PROMTOOL=$(script/promtool)")
}

/// Writes, reads and is refused in every way there is.
async fn live(server: &Server) {
    let admin = server.api.with_token(&token::token("acme"));
    let mut ws = admin.ws().await;
    ws.subscribe("s", &["deal.*"], "latest").await;
    // What comes before it is live is no news: it is delivered, and not measured.
    ws.until("live").await;
    let mut stream = admin.sse("after=latest&topics=deal.*", None).await.unwrap();
    stream.next().await.unwrap();
    for priority in ["critical", "high", "normal", "low"] {
        let event = json!({"id": priority, "topic": "deal.won", "subject": "s3ntinel", "priority": priority});
        admin.append(&event).await;
        admin.append(&event).await;
        ws.until("events").await;
        stream.events().await.unwrap();
    }
    let (status, _) = admin
        .try_append(&json!({"id": "low", "topic": "deal.lost"}))
        .await;
    assert_eq!(status, 422);
    admin.page("earliest", "&topics=deal.*").await;
    assert_eq!(server.api.try_get("/v1/s3ntinel").await.0, 404);
    assert_eq!(admin.try_get("/v1/api-keys/s3ntinel").await.0, 405);
    ws.send(json!({"type": "auth", "token": "x"})).await;
    assert_eq!(ws.close_code().await, 4401);
}

#[tokio::test]
async fn what_happened_is_counted_and_nobody_is_named() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    live(&server).await;
    let admin = server.api.with_token(&token::token("acme"));
    let text = eventually(std::time::Duration::from_secs(5), || async {
        let text = text(&admin).await;
        let is_counted = text.contains("tidewire_websocket_closes_total{code=\"4401\"} 1");
        if is_counted { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(
        !text.contains("s3ntinel") && !text.contains("acme"),
        "{text}"
    );
    let series = series(&text);
    let text_of = |name: &str| {
        let found = series.get(name);
        found.unwrap_or_else(|| panic!("{name}: {text}")).clone()
    };
    let value = |name: &str| -> u64 { text_of(name).parse().unwrap() };
    for priority in ["critical", "high", "normal", "low"] {
        let of = |result: &str| {
            let labels = format!("{{priority=\"{priority}\",result=\"{result}\"}}");
            value(&format!("tidewire_append_events_total{labels}"))
        };
        assert_eq!([of("stored"), of("duplicate")], [1, 1], "{priority}");
        assert_eq!(of("refused"), u64::from(priority == "normal"));
        for histogram in ["tidewire_append_seconds", "tidewire_append_wait_seconds"] {
            let count = value(&format!("{histogram}_count{{priority=\"{priority}\"}}"));
            assert!(count >= 1, "{histogram} {priority}");
        }
        for transport in ["websocket", "sse"] {
            let labels = format!("{{priority=\"{priority}\",transport=\"{transport}\"}}");
            assert_eq!(
                value(&format!("tidewire_delivery_seconds_count{labels}")),
                1
            );
            let sum: f64 = text_of(&format!("tidewire_delivery_seconds_sum{labels}"))
                .parse()
                .unwrap();
            assert!(sum > 0.0 && sum < 5.0, "{sum}");
        }
    }
    let delivered = |transport| {
        value(&format!(
            "tidewire_delivered_events_total{{transport=\"{transport}\"}}"
        ))
    };
    assert_eq!(["websocket", "sse", "page"].map(delivered), [4, 4, 4]);
    // After a retry it looks before it writes, and then the log is looked at.
    let visible = |origin| {
        value(&format!(
            "tidewire_visible_seconds_count{{origin=\"{origin}\"}}"
        ))
    };
    assert_eq!(visible("commit") + visible("look"), 4);
    assert_eq!(value("tidewire_tail_up"), 1);
    assert_eq!(value("tidewire_window_events"), 4);
    assert!(value("tidewire_batch_limit_events") >= 1);
    answers(&value);
    own_commits(&admin).await;
    server.stop().await;
}

/// Of one event either may be first, the own commit or a look that a notification asked for; of several not always the look.
async fn own_commits(admin: &Api) {
    eventually(std::time::Duration::from_secs(20), || async {
        admin.append(&json!({"topic": "other.own"})).await;
        let text = text(admin).await;
        let by_commit = series(&text)["tidewire_visible_seconds_count{origin=\"commit\"}"].clone();
        (by_commit != "0").then_some(()).ok_or(by_commit)
    })
    .await;
}

/// Requests by route, and how the server learns of events.
fn answers(value: &impl Fn(&str) -> u64) {
    let answered = |route: &str, method: &str, status: u16| {
        let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
        value(&format!("tidewire_http_requests_total{labels}"))
    };
    assert_eq!(answered("/v1/events", "POST", 201), 8);
    assert_eq!(answered("none", "GET", 404), 1);
    assert_eq!(answered("/v1/api-keys/{id}", "GET", 405), 1);
    let modes: u64 = ["asleep", "awake", "polling"]
        .map(|mode| value(&format!("tidewire_wake_up_mode{{mode=\"{mode}\"}}")))
        .iter()
        .sum();
    assert_eq!(modes, 1);
}

#[tokio::test]
async fn prometheus_finds_nothing_to_complain_of() {
    let promtool = promtool();
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    live(&server).await;
    let text = text(&server.api.with_token(&token::token("acme"))).await;
    let mut check = tokio::process::Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = check.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    drop(stdin);
    let said = check.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && told.is_empty(), "{told}\n{text}");
    server.stop().await;
}

#[tokio::test]
async fn an_address_of_its_own_serves_metrics_and_probes_and_nothing_else() {
    let db = TestDb::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let arguments = [WITH_TOKENS, &["--metrics-listen", &address]].concat();
    let server = Server::start_with(&db.url, &arguments).await;
    let watcher = Api::new(&format!("http://{address}"));
    assert!(text(&watcher).await.contains("tidewire_build_info"));
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/v1/status", 404),
        ("/v1/events", 404),
    ] {
        assert_eq!(watcher.try_get(path).await.0, status, "{path}");
    }
    assert_eq!(server.api.try_get("/metrics").await.0, 401);
    server.stop().await;
}
