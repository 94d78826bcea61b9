//! Erasures that are cut short, held up, or beside others.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use super::fixture::{PERSON, erase, try_erase};
use crate::support::credentials::admin;
use crate::support::token::{WITH_TOKENS, token};
use crate::support::{Process, Server, TestDb, eventually};

const MANY: i64 = 20_000;

/// Many events of the person in several chunks, a third of them produced about deals.
async fn many(db: &TestDb) -> tokio_postgres::Client {
    let client = db.connect().await;
    for statement in [
        "SELECT public.set_chunk_time_interval('tidewire.events', interval '1 hour')",
        "SET session_replication_role = replica",
        "INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, source, data)
         SELECT clock_timestamp() - make_interval(hours => 6 - i / 4000), 'acme', 'x-' || i, 'a',
                CASE WHEN i % 3 = 0 THEN 'deal' ELSE 's3ntinel' END, CASE WHEN i % 3 = 0 THEN 's3ntinel' END, '{\"a\": 1}'
           FROM generate_series(1, 20000) AS i",
        "SET session_replication_role = origin",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    client
}

const LEFT: &str =
    "SELECT count(*) FROM tidewire.events WHERE subject = 's3ntinel' OR source = 's3ntinel'";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_has_lost_nothing_and_another_goes_on() {
    let db = TestDb::new().await;
    let client = many(&db).await;
    let left = async || -> i64 { client.query_one(LEFT, &[]).await.unwrap().get(0) };
    assert_eq!(left().await, MANY);
    let server = Process::start(&db.url, WITH_TOKENS).await;
    let api = server.api.with_token(&token("acme"));
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let asked = tokio::spawn(async move {
        let path = format!("/v1/subjects/{PERSON}");
        api.request(Method::DELETE, &path)
            .send()
            .await
            .map(|answer| answer.status())
    });
    eventually(Duration::from_secs(20), || async {
        let now = left().await;
        if now < MANY { Ok(()) } else { Err(now) }
    })
    .await;
    server.kill().await;
    let answered = asked.await.unwrap();
    assert!(
        answered.is_err(),
        "{answered:?}: it was killed before it was done"
    );
    let there = left().await;
    assert!((1..MANY).contains(&there), "{there}");
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    erase(&admin(&server, "acme"), PERSON).await;
    assert_eq!(left().await, 0);
    let told =
        "SELECT sum((data -> 'events')::bigint)::bigint, max((data -> 'events_in_all')::bigint),
                       count(*) FILTER (WHERE (data -> 'is_complete')::boolean)
                  FROM tidewire.events WHERE topic = 'tidewire.audit.subject.erased'";
    let row = client.query_one(told, &[]).await.unwrap();
    let [sum, in_all, ends]: [i64; 3] = std::array::from_fn(|at| row.get(at));
    assert_eq!(
        (sum, in_all, ends),
        (MANY, MANY, 1),
        "each event is counted once"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_do_not_wait_for_an_erasure() {
    let db = TestDb::new().await;
    let client = many(&db).await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let open = db.connect().await;
    open.batch_execute("BEGIN").await.unwrap();
    open.query_one(
        "SELECT erased FROM tidewire.erase_subject('acme', 's3ntinel', 'test')",
        &[],
    )
    .await
    .unwrap();
    let acme = admin(&server, "acme");
    let free = async {
        client
            .batch_execute("SELECT tidewire.append('sql', tenant => 'acme')")
            .await
            .unwrap();
        acme.append(&serde_json::json!({"topic": "free", "subject": PERSON}))
            .await;
        acme.page("latest", "").await;
    };
    tokio::time::timeout(Duration::from_secs(2), free)
        .await
        .expect("nobody waits");
    // Another erasure does, and says so.
    let (status, problem) = try_erase(&acme, "somebody").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert!(problem["retry_after"].as_u64().is_some(), "{problem}");
    open.batch_execute("ROLLBACK").await.unwrap();
    let left: i64 = client.query_one(LEFT, &[]).await.unwrap().get(0);
    assert_eq!(left, MANY + 1, "what is rolled back is not erased");
    assert_eq!(erase(&acme, "somebody").await, 0);
    server.stop().await;
}

#[tokio::test]
async fn an_erasure_that_could_not_see_what_is_committed_is_refused() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    client
        .batch_execute("SET default_transaction_isolation = 'repeatable read'")
        .await
        .unwrap();
    for (call, state) in [
        ("SELECT tidewire.erase_subject('acme', 'x')", "TW400"),
        ("SELECT tidewire.apply_retention()", "TW400"),
        ("SELECT tidewire.retain_by_rules()", "TW400"),
        (
            "UPDATE tidewire.events SET erased_at = now()",
            "it succeeded",
        ),
    ] {
        let said = crate::support::sql::state_of(client.batch_execute(call).await);
        assert_eq!(said, state, "{call}");
    }
    client
        .batch_execute("SELECT tidewire.append('a')")
        .await
        .unwrap();
    let said = client
        .batch_execute("UPDATE tidewire.events SET erased_at = now()")
        .await;
    assert_eq!(
        crate::support::sql::state_of(said),
        "TW405",
        "the door is closed again"
    );
}

/// A request ends in time, however much there is.
#[tokio::test]
async fn an_erasure_that_takes_long_is_told_so_and_goes_on_when_it_is_asked_again() {
    let db = TestDb::new().await;
    let client = many(&db).await;
    // Each batch takes longer than half of what a request may take.
    let slow = "CREATE FUNCTION public.take_long() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep(2.6); RETURN NEW; END $$;
                CREATE TRIGGER slow BEFORE UPDATE ON tidewire.erasures FOR EACH ROW EXECUTE FUNCTION public.take_long()";
    client.batch_execute(slow).await.unwrap();
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let path = format!("/v1/subjects/{PERSON}");
    let answer = acme.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["retry-after"], "1");
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["is_complete"], false);
    assert!(answer["cursor"].is_string(), "{answer}");
    let first = answer["events"].as_i64().unwrap();
    assert!((1..MANY).contains(&first), "{answer}");
    let left: i64 = client.query_one(LEFT, &[]).await.unwrap().get(0);
    assert_eq!(left, MANY - first, "what it says is done");
    client
        .batch_execute("DROP TRIGGER slow ON tidewire.erasures")
        .await
        .unwrap();
    assert_eq!(
        i64::try_from(erase(&acme, PERSON).await).unwrap(),
        MANY - first
    );
    let left: i64 = client.query_one(LEFT, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    server.stop().await;
}
