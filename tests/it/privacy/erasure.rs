//! What is left of a person after an erasure: nothing, in any answer, on any server, in no dump; and the order as it was.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fixture::{PERSON, all, erase, events, from, servers, speaks_of};
use crate::support::credentials::admin;
use crate::support::reader::Transport;
use crate::support::token::WITH_TOKENS;
use crate::support::{Api, Server, TestDb, eventually};

/// How soon every server has forgotten.
const PROMISED: Duration = Duration::from_secs(1);

fn texts<'a>(events: &'a [Value], field: &str) -> Vec<Option<&'a str>> {
    events.iter().map(|event| event[field].as_str()).collect()
}

/// The six events, read in every way.
async fn read_by_all(api: &Api) -> Vec<Value> {
    let mut read = Vec::new();
    for transport in Transport::ALL {
        read = eventually(PROMISED, || async {
            let seen = all(api, transport).await;
            if seen.len() == 6 { Ok(seen) } else { Err(seen) }
        })
        .await;
    }
    read
}

/// What is left in the places of the person's events, and of those beside them.
fn check_places(before: &[Value], now: &[Value]) {
    for at in [1, 2, 4] {
        let (was, is) = (&before[at], &now[at]);
        let left: Vec<&str> = is.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "id",
            "cursor",
            "topic",
            "priority",
            "recorded_at",
            "erased_at",
        ];
        expected.sort_unstable();
        assert_eq!(left, expected, "{is}");
        for kept in ["cursor", "topic", "priority", "recorded_at"] {
            assert_eq!(is[kept], was[kept], "{kept}");
        }
        assert_ne!(is["id"], was["id"]);
    }
    // About a deal, and produced by the person: what it says of the deal stays.
    assert_eq!(
        (&now[3]["subject"], &now[3]["data"]),
        (&json!("deal-2"), &json!({"n": 2}))
    );
    assert!(now[3].get("source").is_none() && now[3].get("erased_at").is_none());
    assert_eq!(now[0], before[0]);
    assert_eq!(now[5], before[5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_person_is_left_on_any_transport_of_any_server_and_the_order_stays() {
    let db = TestDb::new().await;
    let [first, second] = servers(&db).await;
    let (acme, beta) = (admin(&first, "acme"), admin(&first, "beta"));
    acme.append(&events()).await;
    beta.append(&events()).await;
    let there = admin(&second, "acme");
    // In the window and in the pages of either.
    let before = read_by_all(&acme).await;
    assert_eq!(read_by_all(&there).await, before);
    assert!(speaks_of(&json!(before).to_string()));
    let resumed = before[0]["cursor"].as_str().unwrap();
    let betas = all(&beta, Transport::Pages).await;

    assert_eq!(erase(&acme, PERSON).await, 4);

    for transport in Transport::ALL {
        let seen = all(&acme, transport).await;
        assert!(
            !speaks_of(&json!(seen).to_string()),
            "{transport:?}: {seen:?}"
        );
        assert_eq!(
            texts(&seen[..6], "cursor"),
            texts(&before, "cursor"),
            "{transport:?}"
        );
        let seen = from(&acme, transport, resumed).await.events;
        assert_eq!(
            texts(&seen[..5], "cursor"),
            texts(&before[1..], "cursor"),
            "{transport:?}"
        );
    }
    for transport in Transport::ALL {
        eventually(PROMISED, || async {
            let seen = from(&there, transport, resumed).await.events;
            let text = json!(seen).to_string();
            if speaks_of(&text) || seen.len() < 6 {
                Err(text)
            } else {
                Ok(())
            }
        })
        .await;
    }
    let now = all(&acme, Transport::Pages).await;
    check_places(&before, &now);
    let told = &now[6];
    assert_eq!(
        (&told["topic"], &told["source"]),
        (&json!("tidewire.audit.subject.erased"), &json!("test"))
    );
    assert_eq!(told["data"]["events_in_all"], 4);
    assert_eq!(
        all(&beta, Transport::Pages).await,
        betas,
        "another tenant's person"
    );
    first.stop().await;
    second.stop().await;
}

/// Pages of history are kept for a while, so that a storm of readers reads them once.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_kept_are_not_shown_again() {
    let db = TestDb::new().await;
    let fill = "INSERT INTO tidewire.events (tenant, topic, subject, data)
        SELECT 'acme', 'a', 's3ntinel', to_jsonb(n) FROM generate_series(1, 3000) AS n";
    db.connect().await.batch_execute(fill).await.unwrap();
    let few = [WITH_TOKENS, &["--window-events", "2000"]].concat();
    let first = Server::start_with(&db.url, &few).await;
    let second = Server::start_with(&db.url, &few).await;
    let (acme, there) = (admin(&first, "acme"), admin(&second, "acme"));
    for api in [&acme, &there] {
        assert!(speaks_of(&api.page("earliest", "").await.to_string()));
    }
    assert_eq!(erase(&acme, PERSON).await, 3000);
    assert!(!speaks_of(&acme.page("earliest", "").await.to_string()));
    eventually(PROMISED, || async {
        let text = there.page("earliest", "").await.to_string();
        if speaks_of(&text) { Err(text) } else { Ok(()) }
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_dump_and_the_planners_samples_hold_nothing_of_an_erased_person() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let client = db.connect().await;
    client
        .batch_execute(
            "SELECT public.set_chunk_time_interval('tidewire.events', interval '1 hour')",
        )
        .await
        .unwrap();
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, source, data)
             SELECT clock_timestamp() - make_interval(hours => i % 5), 'acme', 's3ntinel-old-' || i, 'a',
                    CASE WHEN i % 3 < 2 THEN 's3ntinel' ELSE 'other-' || i END, 'x', '\"s3ntinel\"'
               FROM generate_series(1, 60) AS i WHERE i % 3 < 2 OR i % 3 = 2 AND false;
             SET session_replication_role = origin; ANALYZE tidewire.events",
        )
        .await
        .unwrap();
    let acme = admin(&server, "acme");
    acme.append(&events()).await;
    let query = "SELECT count(*) FROM pg_stats WHERE attname = 'subject'
        AND concat(most_common_vals, histogram_bounds) LIKE '%s3ntinel%'";
    let sampled = async || -> i64 { client.query_one(query, &[]).await.unwrap().get(0) };
    assert!(sampled().await > 1, "in several chunks");
    assert!(speaks_of(&dump(&db).await));
    assert_eq!(erase(&acme, PERSON).await, 44);
    assert_eq!(sampled().await, 0);
    let text = dump(&db).await;
    let left: Vec<&str> = text.lines().filter(|line| speaks_of(line)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(text.contains("deal-1"), "the rest is there");
    server.stop().await;
}

async fn dump(db: &TestDb) -> String {
    let bin = std::env::var_os("TIDEWIRE_POSTGRES_BIN").expect("run with script/with-postgres");
    let output = tokio::process::Command::new(Path::new(&bin).join("pg_dump"))
        .args(["--data-only", &db.url])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_role_of_the_tenant_sees_an_empty_place() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    acme.append(&events()).await;
    erase(&acme, PERSON).await;
    let owner = db.connect().await;
    let role = db.login("tidewire_analyst").await;
    let belongs = "INSERT INTO tidewire.tenant_roles (role, tenant, is_admin) VALUES ($1::text::name, 'acme', true)";
    owner.execute(belongs, &[&role]).await.unwrap();
    let analyst = db.connect_as(&role, &role).await;
    let rows = analyst
        .query(
            "SELECT to_jsonb(e)::text FROM tidewire.my_events AS e ORDER BY seq",
            &[],
        )
        .await
        .unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(rows.len(), 8, "one says that the role was made");
    assert!(!rows.iter().any(|row| speaks_of(row)), "{rows:?}");
    let of_person = "SELECT FROM tidewire.my_subject('s3ntinel')";
    assert!(analyst.query(of_person, &[]).await.unwrap().is_empty());
    for closed in [
        "SELECT tidewire.erase_subject('acme', 'deal-1')",
        "SELECT tidewire.redact('acme', '{1}', '-infinity', 'infinity')",
        "SELECT tidewire.forget_samples('deal-1')",
        "SELECT tidewire.erased_key('acme', 'deal-1')",
        "SELECT FROM tidewire.erasures",
        "SELECT FROM tidewire.retention_rules",
    ] {
        let refused = analyst.query(closed, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{closed}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_retry_does_not_bring_the_person_back() {
    let db = TestDb::new().await;
    let server = Server::start_with(&db.url, WITH_TOKENS).await;
    let acme = admin(&server, "acme");
    let stored = acme.append(&events()).await;
    // About somebody else, under an id without the name: it keeps its place and its data, and loses its source.
    let produced = json!({"id": "plain", "topic": "deal.lost", "subject": "deal-2", "source": PERSON, "data": {"n": 2}});
    acme.append(&produced).await;
    erase(&acme, PERSON).await;
    assert_eq!(acme.append(&produced).await[0]["duplicate"], true);
    let other = json!({"id": "plain", "topic": "deal.lost", "subject": "deal-2", "source": PERSON, "data": {"n": 3}});
    assert_eq!(
        acme.try_append(&other).await.0,
        422,
        "its content still counts"
    );
    for (at, sent) in events().as_array().unwrap().iter().enumerate() {
        if [1, 2, 4].contains(&at) {
            let again = acme.append(sent).await;
            assert_eq!(again[0]["duplicate"], true, "{sent}");
            assert_eq!(again[0]["cursor"], stored[at]["cursor"]);
        }
    }
    // In one request with what is new, and with other content: what it said is gone, the id alone decides.
    let mixed = json!([{"topic": "a", "id": "new"}, {"topic": "b", "id": "s3ntinel-1"}]);
    let answers = acme.append(&mixed).await;
    assert_eq!(
        (&answers[0]["duplicate"], &answers[1]["duplicate"]),
        (&json!(false), &json!(true))
    );
    let insert =
        "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('acme', 's3ntinel-2', 'a')";
    let refused = db.connect().await.batch_execute(insert).await.unwrap_err();
    assert_eq!(
        refused.as_db_error().unwrap().constraint(),
        Some("event_id_is_unique")
    );
    let seen = all(&acme, Transport::Pages).await;
    assert!(!speaks_of(&json!(seen).to_string()));
    // Another tenant's ids are its own, and an event of the same subject is a new one.
    let beta = admin(&server, "beta");
    assert_eq!(beta.append(&events()).await[1]["duplicate"], false);
    let later = json!({"id": "later", "topic": "person.seen", "subject": PERSON, "expect": "none"});
    assert_eq!(acme.append(&later).await[0]["duplicate"], false);
    assert_eq!(erase(&acme, PERSON).await, 1);
    let expire =
        "UPDATE tidewire.log SET deduplication_window = '0'; SELECT tidewire.expire_keys()";
    let client = db.connect().await;
    client.batch_execute(expire).await.unwrap();
    let left = client
        .query("SELECT FROM tidewire.erased_ids", &[])
        .await
        .unwrap();
    assert!(left.is_empty(), "forgotten with the window");
    server.stop().await;
}

/// A transaction that has written and stays open holds the watermark back, and with it everything new.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_open_keeps_no_server_from_forgetting() {
    let db = TestDb::new().await;
    let [first, second] = servers(&db).await;
    let (acme, there) = (admin(&first, "acme"), admin(&second, "acme"));
    acme.append(&events()).await;
    eventually(PROMISED, || async {
        let seen = all(&there, Transport::Pages).await;
        if seen.len() == 6 { Ok(()) } else { Err(seen) }
    })
    .await;
    let open = db.connect().await;
    open.batch_execute("BEGIN; SELECT tidewire.append('a', tenant => 'beta')")
        .await
        .unwrap();
    assert_eq!(erase(&acme, PERSON).await, 4);
    assert!(!speaks_of(
        &json!(all(&acme, Transport::Pages).await).to_string()
    ));
    eventually(PROMISED, || async {
        let text = json!(all(&there, Transport::Pages).await).to_string();
        if speaks_of(&text) { Err(text) } else { Ok(()) }
    })
    .await;
    open.batch_execute("ROLLBACK").await.unwrap();
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_before_is_erased_whoever_writes_meanwhile() {
    let db = TestDb::new().await;
    let [first, second] = servers(&db).await;
    let (acme, there) = (admin(&first, "acme"), admin(&second, "acme"));
    let write = async |writer: usize, from: usize, to: usize| {
        for n in from..to {
            let api = if n % 2 == 0 { &acme } else { &there };
            let event = json!({"id": format!("{writer}-{n}"), "topic": "a", "subject": PERSON, "data": {"n": n}});
            api.append(&event).await;
        }
    };
    join_all((0..8).map(|writer| write(writer, 0, 20))).await;
    let (erased, ()) = tokio::join!(erase(&acme, PERSON), async {
        join_all((0..8).map(|writer| write(writer, 20, 40))).await;
    });
    assert!(erased >= 160, "{erased}");
    let left = "SELECT count(*) FILTER (WHERE (data ->> 'n')::integer < 20), count(*) FILTER (WHERE data IS NOT NULL),
                       count(*) FILTER (WHERE erased_at IS NOT NULL), count(DISTINCT seq)
                  FROM tidewire.events WHERE topic = 'a'";
    let row = db.connect().await.query_one(left, &[]).await.unwrap();
    let [of_before, later, gone, places]: [i64; 4] = std::array::from_fn(|at| row.get(at));
    assert_eq!((of_before, later + gone, places), (0, 320, 320));
    assert_eq!(u64::try_from(gone).unwrap(), erased);
    erase(&there, PERSON).await;
    for api in [&acme, &there] {
        eventually(PROMISED, || async {
            let text = json!(all(api, Transport::Pages).await).to_string();
            if speaks_of(&text) { Err(text) } else { Ok(()) }
        })
        .await;
    }
    first.stop().await;
    second.stop().await;
}
