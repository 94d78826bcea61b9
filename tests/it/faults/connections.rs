//! A database that lets nobody else connect: whoever is connected goes on, and whoever comes waits.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use super::load::Load;
use super::witness::Witness;
use crate::support::{Api, Process, Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_mins(1);

async fn issue(api: &Api) -> Option<Value> {
    let status = api.get("/v1/status").await;
    let issues = status["issues"].as_array().unwrap();
    issues
        .iter()
        .find(|issue| issue["code"] == "too-many-connections")
        .cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_connections_that_is_reached_ends_nothing_and_is_named() {
    // The cluster's roles come with the template, which is made once.
    let _template = TestDb::new().await;
    let db = TestDb::empty().await;
    let admin = db.connect().await;
    // No superuser: for these there is no limit.
    let role = db.login("pg_monitor").await;
    let grants = format!(
        "CREATE EXTENSION timescaledb;
         DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$"
    );
    admin.batch_execute(&grants).await.unwrap();
    let mut url = url::Url::parse(&db.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some(&role)).unwrap();
    let limit = async |most: i32| {
        let change = format!("ALTER ROLE {role} CONNECTION LIMIT {most}");
        admin.batch_execute(&change).await.unwrap();
    };
    let server = Server::start_with(url.as_str(), &[]).await;
    let witness = Witness::live(&server.api).await;
    let load = Load::start(&server.api, &db.url);
    load.goes_on(50).await;

    // As many as it has: nothing of it is closed, and it goes on.
    limit(1).await;
    load.goes_on(50).await;
    assert_eq!(issue(&server.api).await, None);

    // What it has to open anew it does not get, and says so.
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name ~ '^tidewire (append|tail)'";
    assert!(admin.execute(terminate, &[]).await.unwrap() > 0);
    let said = eventually(PATIENCE, || async {
        issue(&server.api).await.ok_or("no issue")
    })
    .await;
    let cause = said["cause"].as_str().unwrap();
    assert!(
        cause.contains("53300") && cause.contains("too many connections"),
        "{said}"
    );
    assert!(
        said["advice"]
            .as_str()
            .unwrap()
            .contains("CONNECTION LIMIT"),
        "{said}"
    );
    load.is_refused().await;

    // Who starts now says it as well, and waits.
    let log = tempfile::NamedTempFile::new().unwrap();
    let (mut starting, file) = (JoinSet::new(), log.reopen().unwrap());
    let other = url.to_string();
    starting.spawn(async move { Process::start_logging(&other, &[], file).await });
    eventually(PATIENCE, || async {
        let said = std::fs::read_to_string(log.path()).unwrap();
        let attempts = said.matches("not started yet").count();
        let is_named = said.contains("CONNECTION LIMIT") && said.contains("too many connections");
        (attempts >= 2 && is_named).then_some(()).ok_or(said)
    })
    .await;

    limit(-1).await;
    let started = starting.join_next().await.unwrap().unwrap();
    load.goes_on(50).await;
    assert!(started.api.try_get("/livez").await.0.is_success());
    eventually(PATIENCE, || async {
        issue(&server.api).await.map_or(Ok(()), Err)
    })
    .await;
    load.judge().await;
    witness.judge(&db.url).await;
    started.kill().await;
    server.stop().await;
}
