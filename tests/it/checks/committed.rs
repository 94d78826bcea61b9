//! `GET /v1/audit` and `tidewire audit`: committed against received.

use serde_json::{Value, json};
use tidewire::access::Role;
use tidewire::event::digest::IdsDigest;

use crate::support::token::{self, WITH_TOKENS, claims, issue};
use crate::support::{Api, Server, TestDb};

fn digest<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = IdsDigest::default();
    for id in ids {
        digest.add(id);
    }
    digest.to_string()
}

async fn audit(api: &Api, file: &str, words: &[&str]) -> (bool, Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args(["audit", "--json", "--received", file])
        .args(words);
    command.args(["--url", &api.url, "--token", &token::token("acme")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    (output.status.success(), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_twice_or_unknown_is_named() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token::token("acme"));
    let events = |topic: &str, from: usize, to: usize| -> Value {
        (from..to)
            .map(|n| json!({"topic": topic, "id": format!("{topic}-{n}")}))
            .collect()
    };
    for batch in 0..3 {
        api.append(&events("a.x", batch * 900, (batch + 1) * 900))
            .await;
        api.append(&events("b.x", batch * 10, (batch + 1) * 10))
            .await;
    }
    // Another tenant's, of the same topic and ids.
    server
        .api
        .with_token(&token::token("beta"))
        .append(&events("a.x", 0, 5))
        .await;
    let ids: Vec<String> = (0..2_700).map(|n| format!("a.x-{n}")).collect();
    let end = api.page("latest", "&topics=a.*").await["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let committed = api.get(&format!("/v1/audit?topics=a.*&until={end}")).await;
    assert_eq!(
        (&committed["count"], &committed["has_more"]),
        (&json!(2_700), &json!(false)),
        "{committed}"
    );
    assert_eq!(
        committed["digest"],
        digest(ids.iter().map(String::as_str)),
        "{committed}"
    );
    let intervals = committed["intervals"].as_array().unwrap();
    assert!(
        intervals.len() >= 3
            && intervals
                .windows(2)
                .all(|pair| pair[0]["through"] == pair[1]["after"]),
        "{committed}"
    );
    // The first interval again, by its own bounds.
    let first = &intervals[0];
    let bounds = format!(
        "after={}&until={}",
        first["after"].as_str().unwrap(),
        first["through"].as_str().unwrap()
    );
    let again = api.get(&format!("/v1/audit?topics=a.*&{bounds}")).await;
    assert_eq!(
        (&again["count"], &again["digest"]),
        (&first["count"], &first["digest"]),
        "{again}"
    );

    spoil(&server.api, &ids, &end).await;
    server.stop().await;
}

/// All of them received, and then not quite.
async fn spoil(api: &Api, ids: &[String], end: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received");
    let file = path.to_str().unwrap();
    let words = ["--topics", "a.*", "--until", end];
    std::fs::write(&path, ids.join("\n")).unwrap();
    let (is_whole, report) = audit(api, file, &words).await;
    assert!(is_whole, "{report}");
    // One left out, one twice, one of nobody's; as events as well as ids.
    let mut spoilt: Vec<String> = ids.iter().filter(|id| *id != "a.x-1500").cloned().collect();
    spoilt.insert(20, json!({"id": "a.x-19", "topic": "a.x"}).to_string());
    spoilt.push("nobody".to_owned());
    std::fs::write(&path, spoilt.join("\n")).unwrap();
    let (is_whole, report) = audit(api, file, &words).await;
    assert!(!is_whole, "{report}");
    let difference = &report["difference"];
    assert_eq!(difference["missing"], json!(["a.x-1500"]), "{report}");
    assert_eq!(difference["duplicated"], json!(["a.x-19"]), "{report}");
    assert_eq!(difference["unknown"], json!(["nobody"]), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_counts_more_than_they_may_read() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let admin = server.api.with_token(&token::token("acme"));
    admin
        .append(&json!([{"topic": "a.x"}, {"topic": "b.x"}, {"topic": "b.y"}]))
        .await;
    let mut narrow = claims("acme");
    narrow.role = Role::Agent;
    narrow.read = vec!["b.*".into()];
    let narrow = server.api.with_token(&issue(&narrow));
    assert_eq!(narrow.get("/v1/audit").await["count"], 2);
    assert_eq!(narrow.try_get("/v1/audit?topics=a.*").await.0, 403);
    assert_eq!(narrow.try_get("/v1/audit?topic=b.*").await.0, 400);
    let stranger = server.api.with_token(&token::token("beta"));
    assert_eq!(stranger.get("/v1/audit").await["count"], 0);
    server.stop().await;
}

/// Behind a transaction that has written and stays open, what was acknowledged since cannot be read: then it is not counted without it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_counted_or_there_is_no_answer() {
    let db = TestDb::new().await;
    let first = Server::start_with(&db.url, WITH_TOKENS).await;
    let second = Server::start_with(&db.url, WITH_TOKENS).await;
    let [first_api, second_api] =
        [&first, &second].map(|server| server.api.with_token(&token::token("acme")));
    let (writer, sql) = (db.connect().await, db.connect().await);
    let path = "/v1/audit?topics=a.*";
    let open = "BEGIN; INSERT INTO tidewire.events (tenant, topic) VALUES ('acme', 'a.sql')";
    writer.batch_execute(open).await.unwrap();
    // Nothing that was acknowledged lies behind it.
    assert_eq!(first_api.get(path).await["count"], 0);
    first_api.append(&json!({"topic": "a.x"})).await;
    let (one, two) = tokio::join!(first_api.try_get(path), second_api.try_get(path));
    for (status, body) in [one, two] {
        assert_eq!(status, 503, "{body}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("open transaction"), "{body}");
    }
    let stranger = second.api.with_token(&token::token("beta"));
    assert_eq!(stranger.get(path).await["count"], 0);
    // Asked while it is open, and answered once it is not.
    let (one, two, ended) = tokio::join!(
        first_api.get(path),
        second_api.get(path),
        writer.batch_execute("COMMIT")
    );
    ended.unwrap();
    assert_eq!((&one["count"], &two["count"]), (&json!(2), &json!(2)));
    assert_eq!(one["digest"], two["digest"]);
    // Each at the other server, and in SQL, at once.
    for count in (3..60).step_by(3) {
        first_api.append(&json!({"topic": "a.x"})).await;
        assert_eq!(second_api.get(path).await["count"], count);
        second_api.append(&json!({"topic": "a.x"})).await;
        assert_eq!(first_api.get(path).await["count"], count + 1);
        let insert = "INSERT INTO tidewire.events (tenant, topic) VALUES ('acme', 'a.sql')";
        sql.batch_execute(insert).await.unwrap();
        assert_eq!(first_api.get(path).await["count"], count + 2);
    }
    // A place that the log has not come to.
    let beyond = "SELECT tidewire.cursor(max(seq) + 1000, now()) FROM tidewire.events";
    let beyond: String = sql.query_one(beyond, &[]).await.unwrap().get(0);
    for query in [format!("until={beyond}"), format!("after={beyond}")] {
        let (status, body) = first_api.try_get(&format!("{path}&{query}")).await;
        let kind = body["type"].as_str().unwrap();
        assert_eq!((status.as_u16(), kind), (409, "/problems/cursor-unknown"));
    }
    for query in ["until=earliest", "after=latest", "until=x"] {
        let (status, body) = first_api.try_get(&format!("{path}&{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
    }
    first.stop().await;
    second.stop().await;
}

/// What `tidewire follow` has printed of a subscription, with its filter, from its place to its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_live_subscription_received_is_audited_by_its_filter_and_places() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token::token("acme"));
    let event = |n: usize| json!({"topic": "deal.won", "subject": format!("deal-{}", n % 2), "id": format!("d-{n}")});
    api.append(&(0..10).map(event).collect()).await;
    let from = api.page("latest", "").await["cursor"].clone();
    let from = from.as_str().unwrap();
    let filter = ["--topics", "deal.*", "--subjects", "deal-1"];
    let mut follow = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    follow
        .args(["follow", "--after", from, "--limit", "50"])
        .args(filter);
    follow.args(["--url", &api.url, "--token", &token::token("acme")]);
    let following = follow.kill_on_drop(true).output();
    let writing = async {
        for n in 10..110 {
            api.append(&event(n)).await;
            api.append(&json!({"topic": "task.done", "subject": "deal-1"}))
                .await;
        }
    };
    let (followed, ()) = tokio::join!(following, writing);
    let printed = String::from_utf8(followed.unwrap().stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 50, "{printed}");
    let last: Value = serde_json::from_str(lines[49]).unwrap();
    let until = last["cursor"].as_str().unwrap();
    // What comes later is none of its business.
    api.append(&event(111)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("received.ndjson");
    let file = path.to_str().unwrap();
    let words = [&filter[..], &["--after", from, "--until", until]].concat();
    std::fs::write(&path, &printed).unwrap();
    let (is_whole, report) = audit(&api, file, &words).await;
    assert!(is_whole && report["committed"] == 50, "{report}");
    let but_one = [&lines[..7], &lines[8..]].concat().join("\n");
    std::fs::write(&path, but_one).unwrap();
    let (is_whole, report) = audit(&api, file, &words).await;
    assert!(!is_whole, "{report}");
    assert_eq!(report["difference"]["missing"], json!(["d-25"]), "{report}");
    // Another's filter is another question.
    std::fs::write(&path, &printed).unwrap();
    let words = ["--topics", "deal.*", "--after", from, "--until", until];
    assert!(!audit(&api, file, &words).await.0);
    server.stop().await;
}

/// `tidewire audit --consumer watch`; whether it passed, and what it says.
async fn of_consumer(api: &Api, words: &[&str]) -> (bool, Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args(["audit", "--consumer", "watch", "--json"])
        .args(words);
    command.args(["--url", &api.url, "--token", &token::token("acme")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    (output.status.success(), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_has_not_passed_and_what_it_never_can_are_named() {
    let db = TestDb::new().await;
    let operated = [
        WITH_TOKENS,
        &[
            "--operator-tenant",
            "acme",
            "--tenant-administration-rate",
            "1:40",
        ],
    ];
    let server = Server::start_with(&db.url, &operated.concat()).await;
    let acme = server.api.with_token(&token::token("acme"));
    let request = |method, path: &str| acme.request(method, path);
    let watch = json!({"topics": ["agent.heartbeat.*"], "within_s": 600});
    let put = request(reqwest::Method::PUT, "/v1/watches/w").json(&watch);
    assert_eq!(put.send().await.unwrap().status(), 200);
    let beat =
        |n: usize| json!({"topic": "agent.heartbeat.ok", "subject": "a", "id": format!("b-{n}")});
    acme.append(&(0..5).map(beat).collect()).await;
    let topics = ["--topics", "agent.heartbeat.*"];
    let (has_passed, report) = of_consumer(&acme, &topics).await;
    assert!(has_passed, "it runs, and is waited for: {report}");
    let pause = request(reqwest::Method::POST, "/v1/admin/consumers/watch/pause");
    assert_eq!(pause.send().await.unwrap().status(), 200);
    acme.append(&(5..8).map(beat).collect()).await;
    let (has_passed, report) = of_consumer(&acme, &topics).await;
    assert!(!has_passed, "{report}");
    let consumer = &report["consumer"];
    assert_eq!(
        (
            &consumer["missing"],
            &consumer["lost_before"],
            &consumer["is_paused"]
        ),
        (&json!(["b-5", "b-6", "b-7"]), &Value::Null, &json!(true)),
        "{report}"
    );
    // Retention removes two of the three before it goes on.
    let client = db.connect().await;
    let retained = "
        INSERT INTO tidewire.retained_tenants (tenant, retained_seq, retained_at)
        SELECT 'acme', seq, recorded_at FROM tidewire.events WHERE id = 'b-6'
        RETURNING tidewire.cursor(retained_seq, retained_at)";
    let retained: String = client.query_one(retained, &[]).await.unwrap().get(0);
    let (has_passed, report) = of_consumer(&acme, &topics).await;
    assert!(!has_passed, "{report}");
    let consumer = &report["consumer"];
    assert_eq!(
        (&consumer["missing"], &consumer["lost_before"]),
        (&json!(["b-7"]), &json!(retained)),
        "{report}"
    );
    // It counts as what administrators ask for.
    let behind = "/v1/audit?consumer=watch&topics=agent.heartbeat.*";
    let mut status = 200;
    for _ in 0..60 {
        status = acme.try_get(behind).await.0.as_u16();
        if status != 200 {
            break;
        }
    }
    assert_eq!(status, 429);
    assert_eq!(
        acme.try_get("/v1/audit").await.0,
        200,
        "and nothing else does"
    );
    server.stop().await;
}
