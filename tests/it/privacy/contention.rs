//! Rules at work beside whoever changes them: a rule that was answered counts, and nobody waits in a circle.

use std::time::Duration;

use tokio_postgres::Client;

use super::retention::store;
use crate::support::{TestDb, eventually};

const DAY: i32 = 86_400;
/// All that is old goes, of everybody's here.
const ALL: &str =
    "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 2)";
const EXACT: &str =
    "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', 'x.y', 3650)";

/// An old event under each of two topics of a tenant, and the rule that keeps neither; with the patience of a slow machine.
async fn due(db: &TestDb) -> Client {
    let client = db.connect().await;
    store(&client, "acme", "a", 3 * DAY, "a").await;
    store(&client, "acme", "x.y", 3 * DAY, "x.y").await;
    client.batch_execute(ALL).await.unwrap();
    for function in ["retain_by_rules()", "apply_retention(integer, timestamptz)"] {
        let patient = format!("ALTER FUNCTION tidewire.{function} SET lock_timeout = '1min'");
        client.batch_execute(&patient).await.unwrap();
    }
    client
}

/// How many sessions wait for a lock, in statements that say this.
async fn waiting(client: &Client, word: &str) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                      AND strpos(query, $1) > 0 AND pid <> pg_backend_pid()";
    client.query_one(waiting, &[&word]).await.unwrap().get(0)
}

async fn until_waiting(client: &Client, word: &str) {
    eventually(Duration::from_secs(10), || async {
        let count = waiting(client, word).await;
        (count > 0).then_some(()).ok_or(count)
    })
    .await;
}

/// Whether the exact rule has been set, as soon as that is done or waits for somebody.
async fn is_set(client: &Client) -> bool {
    eventually(Duration::from_secs(10), || async {
        let is_set = "SELECT EXISTS (SELECT FROM tidewire.retention_rules WHERE pattern = 'x.y')";
        let is_set: bool = client.query_one(is_set, &[]).await.unwrap().get(0);
        let waits = waiting(client, EXACT).await > 0;
        (is_set || waits).then_some(is_set).ok_or("neither")
    })
    .await
}

/// Topics of the events that say something.
async fn kept(client: &Client) -> Vec<String> {
    let kept = "SELECT topic FROM tidewire.events WHERE erased_at IS NULL AND NOT starts_with(topic, 'tidewire.') ORDER BY seq";
    let rows = client.query(kept, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn run(client: &Client, statement: &str) {
    client.batch_execute(statement).await.unwrap();
}

/// The chunk's lock is had and its end is decided: a rule that would keep it is not answered before it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn no_rule_is_set_while_a_chunk_is_removed() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [holder, remover, setter] = [db.connect().await, db.connect().await, db.connect().await];
    // Where the tenant's beginning is to be written: after the last look at the rules.
    run(
        &holder,
        "BEGIN; INSERT INTO tidewire.retained_tenants VALUES ('acme', 0, now())",
    )
    .await;
    let removing = remover.query_one("SELECT tidewire.retain_by_rules()", &[]);
    let setting = async {
        until_waiting(&client, "retain_by_rules").await;
        run(&setter, EXACT).await;
    };
    let looking = async {
        until_waiting(&client, "retain_by_rules").await;
        let is_set = is_set(&client).await;
        run(&holder, "ROLLBACK").await;
        is_set
    };
    let (outcome, (), was_set) = tokio::join!(removing, setting, looking);
    assert!(outcome.unwrap().get::<_, bool>(0));
    assert!(!was_set, "it was answered, and its event is gone");
}

/// Set while the chunk's lock is waited for: it counts, or is not answered yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_being_set_keeps_the_chunk() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [remover, setter] = [db.connect().await, db.connect().await];
    run(&setter, "BEGIN").await;
    run(&setter, EXACT).await;
    let removing = remover.query_one("SELECT tidewire.retain_by_rules()", &[]);
    let setting = async {
        until_waiting(&client, "retain_by_rules").await;
        run(&setter, "COMMIT").await;
    };
    let (outcome, ()) = tokio::join!(removing, setting);
    assert!(!outcome.unwrap().get::<_, bool>(0));
    assert_eq!(kept(&client).await, ["a", "x.y"]);
}

/// A more exact rule takes events from one that is at work: while that is under way it is not answered.
#[tokio::test(flavor = "multi_thread")]
async fn no_rule_is_set_while_its_tenants_are_applied() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [applier, setter] = [db.connect().await, db.connect().await];
    run(&applier, "BEGIN; SELECT tidewire.apply_retention()").await;
    let looking = async {
        let is_set = is_set(&client).await;
        run(&applier, "COMMIT").await;
        is_set
    };
    let ((), was_set) = tokio::join!(run(&setter, EXACT), looking);
    assert!(!was_set, "it was answered, and its event is emptied");
    assert!(kept(&client).await.is_empty());
}

/// And the other way round: a tenant whose rules are being changed has its turn later, others have theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_is_being_set_keeps_its_events() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    store(&client, "zeta", "z", 3 * DAY, "z").await;
    run(&client, &ALL.replace("acme", "zeta")).await;
    let setter = db.connect().await;
    run(&setter, "BEGIN").await;
    run(&setter, EXACT).await;
    run(&client, "SELECT tidewire.apply_retention()").await;
    assert_eq!(kept(&client).await, ["a", "x.y"]);
    run(&setter, "COMMIT").await;
    run(&client, "SELECT tidewire.apply_retention()").await;
    assert_eq!(kept(&client).await, ["x.y"]);
}

/// Both wait for an erasure: when it ends, neither waits for the other.
#[tokio::test(flavor = "multi_thread")]
async fn batches_and_chunks_do_not_wait_in_a_circle() {
    let db = TestDb::new().await;
    let client = due(&db).await;
    let [holder, applier, remover] = [db.connect().await, db.connect().await, db.connect().await];
    run(
        &holder,
        "BEGIN; UPDATE tidewire.erasure_changes SET version = version + 1",
    )
    .await;
    let applying = run(&applier, "SELECT tidewire.apply_retention()");
    let removing = async {
        until_waiting(&client, "apply_retention").await;
        run(&remover, "SELECT tidewire.retain_by_rules()").await;
    };
    let ending = async {
        until_waiting(&client, "retain_by_rules").await;
        run(&holder, "ROLLBACK").await;
    };
    tokio::join!(applying, removing, ending);
    assert!(kept(&client).await.is_empty());
}

/// A call of a round of its own, as a server's: whether it is complete; nothing if somebody was in the way.
async fn call(client: &Client) -> Option<bool> {
    let call = "SELECT is_complete FROM tidewire.apply_retention(5000, clock_timestamp())";
    client.query_one(call, &[]).await.unwrap().get(0)
}

/// Three tenants of which the second has its event in a chunk of its own; all are due.
async fn three_tenants(db: &TestDb) -> Client {
    let client = db.connect().await;
    for (tenant, days) in [("a", 3), ("b", 9), ("c", 3)] {
        store(&client, tenant, tenant, days * DAY, tenant).await;
        run(&client, &ALL.replace("acme", tenant)).await;
    }
    client
}

/// An application's transaction over its own events, or an index that is made on an old chunk.
#[tokio::test]
async fn whoever_holds_a_tenants_events_costs_no_other_tenant_its_turn() {
    let chunk = "DO $$ BEGIN EXECUTE (SELECT format('LOCK TABLE %I.%I IN SHARE MODE', chunk_schema, chunk_name)
        FROM timescaledb_information.chunks WHERE hypertable_schema = 'tidewire' ORDER BY range_start LIMIT 1); END $$";
    for held in [
        "SELECT FROM tidewire.events WHERE tenant = 'b' FOR UPDATE",
        chunk,
    ] {
        let db = TestDb::new().await;
        let (client, holder) = (three_tenants(&db).await, db.connect().await);
        run(&holder, &format!("BEGIN; {held}")).await;
        assert_eq!(call(&client).await, None, "{held}");
        assert_eq!(kept(&client).await, ["b"], "{held}");
        // As long as it takes: the others' turns come and go.
        store(&client, "d", "d", 3 * DAY, "d").await;
        run(&client, &ALL.replace("acme", "d")).await;
        assert_eq!(call(&client).await, None, "{held}");
        assert_eq!(kept(&client).await, ["b"], "{held}");
        run(&holder, "ROLLBACK").await;
        assert_eq!(call(&client).await, Some(true), "{held}");
        assert!(kept(&client).await.is_empty(), "{held}");
    }
}

/// It holds up everybody's: that is said, and what has been done stays done.
#[tokio::test]
async fn an_erasure_ends_a_call_and_fails_none() {
    let db = TestDb::new().await;
    let (client, holder) = (three_tenants(&db).await, db.connect().await);
    let look = "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('0', '*', 2)";
    run(&client, look).await;
    let version = "BEGIN; UPDATE tidewire.erasure_changes SET version = version + 1";
    run(&holder, version).await;
    assert_eq!(call(&client).await, None);
    assert_eq!(kept(&client).await.len(), 3);
    let looked = "SELECT through_at IS NOT NULL FROM tidewire.retention_rules WHERE tenant = '0'";
    let looked: bool = client.query_one(looked, &[]).await.unwrap().get(0);
    assert!(looked, "the first has had its turn");
    run(&holder, "ROLLBACK").await;
    assert_eq!(call(&client).await, Some(true));
    assert!(kept(&client).await.is_empty());
}

/// Of two servers, or of a server and somebody who calls it by hand, one does it: the other is answered, not refused.
#[tokio::test]
async fn two_that_apply_rules_at_once_do_not_fail() {
    let db = TestDb::new().await;
    let (client, other) = (three_tenants(&db).await, db.connect().await);
    let remove = async || -> bool {
        let remove = "SELECT tidewire.retain_by_rules()";
        client.query_one(remove, &[]).await.unwrap().get(0)
    };
    for (at_work, is_left) in [
        ("SELECT tidewire.apply_retention()", true),
        ("SELECT tidewire.retain_by_rules()", true),
        ("SELECT tidewire.retain('3000 days')", false),
    ] {
        run(&other, &format!("BEGIN; {at_work}")).await;
        assert!(!remove().await, "{at_work}");
        if is_left {
            assert_eq!(call(&client).await, Some(true), "{at_work}");
        }
        run(&other, "ROLLBACK").await;
        assert_eq!(kept(&client).await.len(), 3, "{at_work}");
    }
    assert!(remove().await);
    assert_eq!(call(&client).await, Some(true));
    assert!(kept(&client).await.is_empty());
}

/// Every server asks now and then whether the log lives on the same database.
#[tokio::test]
async fn whoever_applies_rules_keeps_no_server_from_knowing_its_log() {
    let db = TestDb::new().await;
    let (client, other) = (three_tenants(&db).await, db.connect().await);
    run(&other, "BEGIN; SELECT tidewire.apply_retention()").await;
    run(&client, "SET statement_timeout = '5s'").await;
    run(&client, "SELECT tidewire.begin_epoch(force => false)").await;
    run(&other, "ROLLBACK").await;
}
