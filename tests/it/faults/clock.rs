//! Clocks that are set back by an hour: the server's, and PostgreSQL's, which gives events their time.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

use super::load::Load;
use super::witness::Witness;
use crate::crash::Cluster;
use crate::history::writers::connect;
use crate::support::clock::FakeClock;
use crate::support::credentials::{create_key, revoke};
use crate::support::token::{WITH_TOKENS, claims, in_seconds, issue, token, with_jti};
use crate::support::{Api, Process, Server, TestDb, eventually};
use crate::watch::fixture::{beat, told, until_told, watch};

const PATIENCE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3_600;

async fn until_issues(api: &Api, wanted: &[&str]) -> Vec<Value> {
    eventually(PATIENCE, || async {
        let status = api.get("/v1/status").await;
        let issues = status["issues"].as_array().unwrap().clone();
        let of_clocks = |issue: &&Value| issue["code"].as_str().unwrap().starts_with("clock");
        let mut codes: Vec<&str> = issues
            .iter()
            .filter(of_clocks)
            .map(|one| one["code"].as_str().unwrap())
            .collect();
        codes.sort_unstable();
        (codes == wanted).then(|| issues.clone()).ok_or(status)
    })
    .await
}

/// Which of the two are let in.
async fn are_in(apis: &[&Api]) -> Vec<StatusCode> {
    let mut answers = Vec::new();
    for api in apis {
        answers.push(api.try_get("/v1/events?after=latest").await.0);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_back_an_hour_goes_on() {
    let Some(clock) = FakeClock::right() else {
        return;
    };
    let db = TestDb::new().await;
    let server = Process::start_by(&clock, &db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token("dev"));
    // What administrators do is told in their own tenant's log.
    let acme = server.api.with_token(&token("acme"));
    let revoked = server.api.with_token(&with_jti("acme", "stolen"));
    let mut long = claims("dev");
    long.exp = in_seconds(2 * HOUR);
    let long = server.api.with_token(&issue(&long));
    revoke(&acme, &json!({"jti": "stolen"})).await;
    let (_, key) = create_key(&acme).await;
    let key = server.api.with_token(&key);
    let witness = Witness::live(&api).await;
    let load = Load::start(&api, &db.url);
    load.goes_on(100).await;
    until_issues(&api, &[]).await;
    let in_force = [
        StatusCode::UNAUTHORIZED,
        StatusCode::OK,
        StatusCode::OK,
        StatusCode::OK,
    ];
    let who = [&revoked, &long, &key, &api];
    assert_eq!(are_in(&who).await, in_force);

    clock.set(-HOUR);
    load.goes_on(100).await;
    let issues = until_issues(&api, &["clocks-apart"]).await;
    assert_eq!(issues[0]["code"], "clocks-apart", "{issues:?}");
    let ahead = api.get("/v1/status").await["database"]["clock_ahead_s"].as_f64();
    assert!((3_500.0..3_700.0).contains(&ahead.unwrap()), "{ahead:?}");
    // Who was in is in, who was out is out.
    assert_eq!(are_in(&who).await, in_force);
    // What is issued now ends when its issuer says: nobody lives longer for a clock that went back.
    let mut over = claims("dev");
    over.exp = in_seconds(-2 * HOUR);
    let over = server.api.with_token(&issue(&over));
    assert_eq!(are_in(&[&over]).await, [StatusCode::UNAUTHORIZED]);

    clock.set(0);
    load.goes_on(100).await;
    until_issues(&api, &[]).await;
    assert_eq!(are_in(&who).await, in_force);
    load.judge().await;
    witness.judge(&db.url).await;
    server.kill().await;
}

/// A statement that writes an event and waits for the lock that `client` takes here.
async fn write_meanwhile(url: &str, client: &Client) -> JoinSet<Result<(), Error>> {
    let lock = "SELECT pg_advisory_lock(42)";
    client.batch_execute(lock).await.unwrap();
    let writer = connect(url, "meanwhile").await;
    let mut written = JoinSet::new();
    written.spawn(async move {
        let write = "INSERT INTO tidewire.events (tenant, topic)
                     SELECT 'dev', 'a.' || coalesce(nullif(pg_advisory_xact_lock(42)::text, ''), 'b')";
        writer.batch_execute(write).await
    });
    eventually(PATIENCE, || async {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted";
        let count: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (count == 1).then_some(()).ok_or(count)
    })
    .await;
    written
}

/// Gives signs of life until one is in time, and then none until that is told of as well.
async fn lives_and_stalls(acme: &Api, client: &Client) {
    let before = told(client, "acme", "a").await.len();
    eventually(PATIENCE, || async {
        beat(acme, &["a"]).await;
        let told = told(client, "acme", "a").await;
        (told.len() > before).then_some(()).ok_or(told)
    })
    .await;
    let told = eventually(PATIENCE, || async {
        let told = told(client, "acme", "a").await;
        let has_stalled = told.len() > before + 1 && told.last().unwrap() == "stalled";
        has_stalled.then_some(told.clone()).ok_or(told)
    })
    .await;
    // Each spell begins once and ends once.
    let turns = ["stalled", "recovered"].iter().cycle();
    assert!(
        told.iter().zip(turns).all(|(told, turn)| told == turn),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_clock_is_set_back_an_hour_keeps_order_and_tells_of_no_false_silence() {
    let Some(clock) = FakeClock::right() else {
        return;
    };
    let bin = std::env::var_os("TIDEWIRE_POSTGRES_BIN").expect("run with script/with-postgres");
    let bin = clock.postgres(&PathBuf::from(bin));
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), bin).await;
    let server = Server::start_with(
        &cluster.url,
        &[WITH_TOKENS, &["--retention-days", "1"]].concat(),
    )
    .await;
    let [api, acme] = ["dev", "acme"].map(|tenant| server.api.with_token(&token(tenant)));
    let client = connect(&cluster.url, "test").await;
    let witness = Witness::live(&api).await;
    let load = Load::start(&api, &cluster.url);
    load.goes_on(100).await;
    watch(&acme, "beats", &["agent.heartbeat.*"], 2).await;
    watch(&acme, "alive", &["agent.heartbeat.*"], 1_800).await;
    beat(&acme, &["a"]).await;
    until_told(&client, "a", &["stalled"]).await;
    let before = json!({"topic": "a.b", "id": "before", "subject": "s"});
    let cursor = api.append(&before).await[0]["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    until_issues(&api, &[]).await;

    let mut written = write_meanwhile(&cluster.url, &client).await;
    clock.set(-HOUR);
    let lock = "SELECT pg_advisory_unlock(42)";
    client.batch_execute(lock).await.unwrap();
    // Its time is neither before nor after what it was begun at: it is not the writer's fault.
    let written = written.join_next().await.unwrap().unwrap();
    let code = written.unwrap_err().code().cloned();
    assert_eq!(code.unwrap().code(), "40001");
    let after = json!({"topic": "a.b", "id": "after", "subject": "s"});
    let later = api.append(&after).await[0]["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(went_back(&client).await, "the clock went back");
    load.goes_on(100).await;
    let issues = until_issues(&api, &["clock-went-back", "clocks-apart"]).await;
    let back = issues
        .iter()
        .find(|issue| issue["code"] == "clock-went-back")
        .unwrap();
    assert!(back["advice"].as_str().unwrap().contains("NTP"), "{back}");
    // Cursors go on as places do; from before one reads on, and a retry is known.
    assert!(later > cursor, "{cursor} {later}");
    let page = api.page(&cursor, "&subjects=s").await;
    assert_eq!(page["events"][0]["id"], "after", "{page}");
    for event in [&before, &after] {
        assert_eq!(api.append(event).await[0]["duplicate"], true);
    }
    // A spell goes on where it was, ends when it is heard of, and another begins: each told of once.
    assert_eq!(told(&client, "acme", "a").await, ["stalled"]);
    lives_and_stalls(&acme, &client).await;

    clock.set(0);
    load.goes_on(100).await;
    until_issues(&api, &[]).await;
    lives_and_stalls(&acme, &client).await;
    let of_the_other = "SELECT count(*) FROM tidewire.events WHERE source = 'tidewire.watch' AND data->>'watch' = 'alive'";
    let of_the_other: i64 = client.query_one(of_the_other, &[]).await.unwrap().get(0);
    assert_eq!(
        of_the_other, 0,
        "nobody is silent for an hour that nobody has lived"
    );
    load.judge().await;
    witness.judge(&cluster.url).await;
    server.stop().await;
    cluster.stop().await;
}

/// Whether a later place has an earlier time.
async fn went_back(client: &Client) -> bool {
    let select = "SELECT max(recorded_at) FILTER (WHERE id = 'before') > max(recorded_at) FILTER (WHERE id = 'after')
                    FROM tidewire.events";
    client.query_one(select, &[]).await.unwrap().get(0)
}
