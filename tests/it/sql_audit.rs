//! Who appended in SQL, and what else is changed there, stands in the tenant's own log.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::token::{self, WITH_TOKENS};
use crate::support::{Server, TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(10);
const RECORD: &str = "SELECT tidewire.record_sql_appends()";
const APPENDED: &str = "tidewire.audit.events.appended";

/// A role of the tenant that may append, as `tidewire role create` makes it. Its password is its name.
async fn role_of(db: &TestDb, tenant: &str) -> String {
    let role = db.login("tidewire_writer").await;
    let client = db.connect().await;
    let row = "INSERT INTO tidewire.tenant_roles (role, tenant) VALUES ($1::text::name, $2)";
    client.execute(row, &[&role, &tenant]).await.unwrap();
    role
}

/// Subject, source and data of the tenant's events of a topic.
async fn told(client: &Client, tenant: &str, topic: &str) -> Vec<(String, String, Value)> {
    let rows = "SELECT subject, source, data::text FROM tidewire.events WHERE tenant = $1 AND topic = $2 ORDER BY seq";
    let rows = client.query(rows, &[&tenant, &topic]).await.unwrap();
    let text = |row: &tokio_postgres::Row, at| row.get::<_, Option<String>>(at).unwrap_or_default();
    let data = |row| serde_json::from_str(&text(row, 2)).unwrap();
    rows.iter()
        .map(|row| (text(row, 0), text(row, 1), data(row)))
        .collect()
}

/// Of a topic, or of all, how many events the audit counts of this name.
async fn counted(client: &Client, tenant: &str, by: &str, topic: Option<&str>) -> u64 {
    let told = told(client, tenant, APPENDED).await;
    let own = told.iter().filter(|(subject, ..)| subject == by);
    own.map(|(_, _, data)| match topic {
        Some(topic) => data["topics"][topic].as_u64().unwrap_or_default(),
        None => data["count"].as_u64().unwrap(),
    })
    .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_role_appended_whatever_source_it_names() {
    let db = TestDb::new().await;
    let settings = [WITH_TOKENS, &["--audit-interval-s", "1"]].concat();
    let servers = [
        Server::start_with(&db.url, &settings).await,
        Server::start_with(&db.url, &settings).await,
    ];
    let (owner, role) = (db.connect().await, role_of(&db, "acme").await);
    let writer = db.connect_as(&role, &role).await;
    writer
        .batch_execute(
            "SELECT tidewire.append('deal.fraud', '{}', id => 'f', source => 'alice');
             SELECT tidewire.append('deal.fraud', '{}', id => 'f', source => 'alice');
             SET tidewire.own_slot = '0'; SET tidewire.preparing = 'open'; SET tidewire.actor = 'alice'; SET application_name = 'tidewire append';
             BEGIN; SELECT tidewire.append('deal.won', source => 'alice'); SAVEPOINT a;
             SELECT tidewire.append('deal.taken.back'); ROLLBACK TO a; SELECT tidewire.append('deal.won'); COMMIT;
             BEGIN; SELECT tidewire.append('deal.taken.back'); ROLLBACK",
        )
        .await
        .unwrap();
    let loader = db.login("tidewire_loader").await;
    let copying = db.connect_as(&loader, &loader).await;
    let copied = "INSERT INTO tidewire.events (tenant, topic) SELECT 'acme', 'bulk' FROM generate_series(1, 500);
        INSERT INTO tidewire.events (tenant, topic) VALUES ('acme', 'tidewire.audit.forged'), ('beta', 'bulk')";
    copying.batch_execute(copied).await.unwrap();
    let by_owner = "SELECT tidewire.append('deal.by.owner', tenant => 'acme')";
    owner.batch_execute(by_owner).await.unwrap();
    // What servers write they count themselves, by either of their statements.
    let api = servers[0].api.with_token(&token::token("acme"));
    for _ in 0..2 {
        api.append(&json!([{"topic": "over.http", "id": "h"}]))
            .await;
        api.append(&json!({"topic": "over.http"})).await;
    }
    eventually(PATIENCE, || async {
        let now = (
            counted(&owner, "acme", &role, None).await,
            counted(&owner, "acme", &loader, None).await,
            counted(&owner, "acme", "test", Some("over.http")).await,
            counted(&owner, "beta", &loader, Some("bulk")).await,
        );
        (now == (3, 501, 3, 1)).then_some(()).ok_or(now)
    })
    .await;
    for server in servers {
        server.stop().await;
    }
    let of = async |by: &str, topic| counted(&owner, "acme", by, Some(topic)).await;
    assert_eq!(of(&role, "deal.fraud").await, 1, "a duplicate is no event");
    assert_eq!(of(&role, "deal.won").await, 2);
    assert_eq!(of(&loader, "tidewire.audit.forged").await, 1);
    let told = told(&owner, "acme", APPENDED).await;
    let over_http = told
        .iter()
        .filter(|(_, _, data)| !data["topics"]["over.http"].is_null());
    assert!(over_http.clone().all(|(by, ..)| by == "test"), "{told:#?}");
    let of_owner = told
        .iter()
        .find(|(_, _, data)| data["topics"]["deal.by.owner"] == 1);
    let (by, source, data) = of_owner.unwrap();
    assert_eq!((by, &data["role"]), (source, &json!("sql")));
    assert_eq!(data["credential"]["sql_role"], json!(by));
    assert!(data["first_at"].as_str() <= data["last_at"].as_str());
    let text = format!("{told:?}");
    assert!(
        !text.contains("alice") && !text.contains("taken.back"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_what_was_committed_and_holds_nobody_up() {
    let db = TestDb::new().await;
    let (owner, role) = (db.connect().await, role_of(&db, "acme").await);
    let mut open = Vec::new();
    for _ in 0..8 {
        let writer = db.connect_as(&role, &role).await;
        let begin = "SET lock_timeout = '100ms'; BEGIN; SELECT tidewire.append('a') FROM generate_series(1, 10)";
        writer.batch_execute(begin).await.unwrap();
        open.push(writer);
    }
    let taken = async |client: &Client| -> i64 {
        let row = client.query_one(RECORD, &[]).await;
        row.unwrap().get(0)
    };
    assert_eq!(taken(&owner).await, 0, "nothing is committed");
    for (n, writer) in open.iter().enumerate() {
        let end = if n < 5 { "COMMIT" } else { "ROLLBACK" };
        writer.batch_execute(end).await.unwrap();
    }
    // One takes them and does not end: others neither wait for it nor count them, and writers go on.
    let stuck = db.connect().await;
    stuck.batch_execute("BEGIN").await.unwrap();
    assert_eq!(taken(&stuck).await, 50);
    open[0]
        .batch_execute("SELECT tidewire.append('b')")
        .await
        .unwrap();
    assert_eq!(taken(&owner).await, 1);
    stuck.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(counted(&owner, "acme", &role, None).await, 1);
    assert_eq!(taken(&owner).await, 50, "nothing is lost");
    assert_eq!(taken(&owner).await, 0, "nor counted twice");
    assert_eq!(counted(&owner, "acme", &role, Some("a")).await, 50);
    let forgotten = "SELECT tidewire.append('c', tenant => 'acme'), tidewire.record_sql_appends(is_written => false)";
    owner.batch_execute(forgotten).await.unwrap();
    owner
        .batch_execute("SELECT tidewire.record_sql_appends(is_written => false)")
        .await
        .unwrap();
    assert_eq!(taken(&owner).await, 0);
    assert_eq!(told(&owner, "acme", APPENDED).await.len(), 2);
}

#[tokio::test]
async fn topics_are_bounded_and_any_name_of_a_role_is_one() {
    let db = TestDb::new().await;
    let owner = db.connect().await;
    let loader = db.login("tidewire_loader").await;
    let copying = db.connect_as(&loader, &loader).await;
    let many = "INSERT INTO tidewire.events (tenant, topic)
                SELECT 'acme', 't' || n FROM generate_series(1, 300) AS n, generate_series(1, 2)";
    copying.batch_execute(many).await.unwrap();
    let single = "INSERT INTO tidewire.events (tenant, topic) SELECT 'acme', 'u' || $1::text";
    for n in 0..60 {
        copying.execute(single, &[&n.to_string()]).await.unwrap();
    }
    let kept: i64 = owner
        .query_one("SELECT count(*) FROM tidewire.sql_appends", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(kept, 51 + 60, "bounded for each statement");
    let odd = "CREATE ROLE \"odd\nname\" SUPERUSER; SET SESSION AUTHORIZATION \"odd\nname\";
               SELECT tidewire.append('odd', source => 'x', tenant => 'acme'); RESET SESSION AUTHORIZATION; DROP ROLE \"odd\nname\"";
    owner.batch_execute(odd).await.unwrap();
    owner.batch_execute(RECORD).await.unwrap();
    assert_eq!(counted(&owner, "acme", &loader, None).await, 660);
    let told = told(&owner, "acme", APPENDED).await;
    assert_eq!(told.len(), 2);
    let (.., data) = told.iter().find(|(by, ..)| *by == loader).unwrap();
    // The others of both kinds of statements are one of the 50.
    assert_eq!(data["topics"].as_object().unwrap().len(), 50);
    assert!(told.iter().any(|(by, ..)| by == "odd?name"), "{told:?}");
}

#[tokio::test]
async fn a_role_can_neither_see_nor_change_what_is_counted_of_it() {
    let db = TestDb::new().await;
    let role = role_of(&db, "acme").await;
    let writer = db.connect_as(&role, &role).await;
    writer
        .batch_execute("SELECT tidewire.append('a')")
        .await
        .unwrap();
    for attempt in [
        "SELECT * FROM tidewire.sql_appends",
        "DELETE FROM tidewire.sql_appends",
        "TRUNCATE tidewire.sql_appends",
        "INSERT INTO tidewire.sql_appends VALUES ('x', 'acme', 'a', -1, now())",
        "SELECT tidewire.record_sql_appends(is_written => false)",
    ] {
        let refused = writer.batch_execute(attempt).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{attempt}");
    }
    let owner = db.connect().await;
    owner.batch_execute(RECORD).await.unwrap();
    assert_eq!(counted(&owner, "acme", &role, Some("a")).await, 1);
}

#[tokio::test]
async fn it_says_who_made_changed_and_dropped_a_role() {
    let db = TestDb::new().await;
    let owner = db.connect().await;
    let by: String = owner
        .query_one("SELECT session_user::text", &[])
        .await
        .unwrap()
        .get(0);
    let role = format!("{}_made", db.login("tidewire_analyst").await);
    owner
        .batch_execute(&format!(
            "SELECT tidewire.create_tenant_role('{role}', 'acme', may_write => true);
             UPDATE tidewire.tenant_roles SET is_admin = true WHERE role = '{role}';
             UPDATE tidewire.tenant_roles SET tenant = 'beta' WHERE role = '{role}';
             SELECT tidewire.drop_tenant_role('{role}')"
        ))
        .await
        .unwrap();
    let mut seen = Vec::new();
    for tenant in ["acme", "beta"] {
        for did in ["created", "changed", "removed"] {
            for (subject, source, data) in
                told(&owner, tenant, &format!("tidewire.audit.sql_role.{did}")).await
            {
                assert_eq!((&subject, &source), (&role, &by));
                seen.push((
                    tenant,
                    did,
                    data["is_admin"] == true,
                    data["may_write"] == true,
                ));
            }
        }
    }
    assert_eq!(
        seen,
        [
            ("acme", "created", false, true),
            ("acme", "changed", true, true),
            ("acme", "removed", true, false),
            ("beta", "created", true, true),
            ("beta", "removed", true, false),
        ]
    );
    for table in ["tenant_roles", "retention_rules"] {
        let refused = owner
            .batch_execute(&format!("TRUNCATE tidewire.{table}"))
            .await;
        assert_eq!(refused.unwrap_err().code().unwrap().code(), "TW405");
    }
}

#[tokio::test]
async fn it_says_what_retention_has_removed() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let store = "SET session_replication_role = replica;
        INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
        SELECT clock_timestamp() - t.days * interval '1 day', t.tenant, t.tenant || t.days || t.topic, t.topic
          FROM (VALUES ('acme', 40, 'a'), ('acme', 40, 'b'), ('beta', 40, 'a'), ('acme', 10, 'a'), ('beta', 10, 'a'),
                       ('gone', 90, 'a'), ('quiet', 90, 'tidewire.audit.x')) AS t(tenant, days, topic);
        SET session_replication_role = origin;
        SELECT tidewire.retain_oldest(interval '60 days');
        INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 20), ('beta', '*', 20), ('beta', 'a', 5);
        SELECT tidewire.retain_by_rules();
        SELECT tidewire.apply_retention()";
    for statement in store.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    let told = async |tenant: &str| -> Vec<Value> {
        let told = told(&client, tenant, "tidewire.audit.retention.applied").await;
        told.into_iter().map(|(_, _, data)| data).collect()
    };
    let said =
        |pattern: &str, days, events| json!({"pattern": pattern, "days": days, "events": events});
    assert_eq!(told("acme").await, [said("*", 20, 2)]);
    assert_eq!(told("beta").await, [said("a", 5, 1), said("a", 5, 1)]);
    assert_eq!(told("quiet").await.len(), 0);
    let gone = told("gone").await;
    assert!(gone.len() == 1 && gone[0]["before"].is_string(), "{gone:?}");
    // What had no effect is not told.
    client
        .batch_execute("SELECT tidewire.apply_retention()")
        .await
        .unwrap();
    assert_eq!(told("beta").await.len(), 2);
}

/// Where two thousand rows do not end in the time of a statement, fewer do; and `/v1/status` says what waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_is_asked_for_less_at_once_and_status_says_what_waits() {
    let db = TestDb::new().await;
    let settings = [WITH_TOKENS, &["--audit-interval-s", "3600"]].concat();
    let server = Server::start_with(&db.url, &settings).await;
    let (owner, acme) = (
        db.connect().await,
        server.api.with_token(&token::token("acme")),
    );
    let unaudited = async || {
        let status = acme.get("/v1/status").await;
        let codes = status["issues"].as_array().unwrap().iter();
        let is_late = codes.filter(|issue| issue["code"] == "audit-late").count() == 1;
        let waiting = &status["database"]["unaudited"];
        (waiting["statements"].as_i64().unwrap(), is_late)
    };
    // 480 rows of 10 ms each: more than a statement's time.
    let slow = "CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END $$;
                CREATE TRIGGER slowly BEFORE DELETE ON tidewire.sql_appends FOR EACH ROW EXECUTE FUNCTION public.slowly();
                INSERT INTO tidewire.sql_appends SELECT 'r', 'acme', 'deal.won', 1, clock_timestamp() FROM generate_series(1, 479)";
    owner.batch_execute(slow).await.unwrap();
    assert_eq!(unaudited().await, (479, false));
    let old = "INSERT INTO tidewire.sql_appends VALUES ('r', 'acme', 'deal.won', 1, clock_timestamp() - interval '3 hours')";
    owner.batch_execute(old).await.unwrap();
    assert_eq!(unaudited().await, (480, true));
    server.app.history.record_sql_appends(true).await.unwrap();
    assert_eq!(unaudited().await, (0, false));
    assert_eq!(counted(&owner, "acme", "r", None).await, 480);
    server.stop().await;
}

/// Whoever uploads is not answered any more, but what was on its way is stored, and in the audit.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_under_way_when_the_server_stops_is_counted() {
    let db = TestDb::new().await;
    let settings = [WITH_TOKENS, &["--audit-interval-s", "3600"]].concat();
    let server = Server::start_with(&db.url, &settings).await;
    let acme = server.api.with_token(&token::token("acme"));
    let (client, holder) = (db.connect().await, db.connect().await);
    let held = "BEGIN; SELECT tidewire.append('x', id => '1', tenant => 'acme')";
    holder.batch_execute(held).await.unwrap();
    let upload = acme
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .body("{\"id\":\"1\",\"topic\":\"deal.last\"}\n");
    let mut uploading = tokio::task::JoinSet::new();
    uploading.spawn(async move { upload.send().await.map(drop) });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                      AND application_name LIKE 'tidewire append patiently%'";
    eventually(PATIENCE, || async {
        let waiting: i64 = client.query_one(waiting, &[]).await.unwrap().get(0);
        (waiting == 1).then_some(()).ok_or(waiting)
    })
    .await;
    let tasks = server.app.tasks.clone();
    let released = async {
        tasks.stopping().await;
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    tokio::join!(server.stop(), released);
    assert_eq!(counted(&client, "acme", "test", Some("deal.last")).await, 1);
}
