//! PostgreSQL's functions that take advisory locks, by whose numbers the log goes: closed to those who have no use for them.

use tidewire::pg::definitions;

use super::fixture::Tenants;
use crate::support::TestDb;
use crate::support::sql::state_of;

const TAKING: &str = "SELECT string_agg(p.oid::regprocedure::text, ';') FROM pg_proc AS p
    WHERE p.proname ~ '^pg_(try_)?advisory_(xact_)?lock' AND p.pronamespace = 'pg_catalog'::regnamespace";

/// Those who write as well: what they call runs with the rights of the log's owner.
#[tokio::test]
async fn no_role_of_a_tenant_takes_a_lock_of_the_log_and_all_do_their_work() {
    let tenants = Tenants::new().await;
    let taking: String = tenants.owner.query_one(TAKING, &[]).await.unwrap().get(0);
    assert_eq!(taking.split(';').count(), 16, "{taking}");
    let writer = tenants.role("writer", "mine", true, false).await;
    let loader = tenants.db.login("tidewire_loader").await;
    for role in [&writer, &loader] {
        let client = tenants.db.connect_as(role, role).await;
        for function in taking.split(';') {
            let call = function
                .replace("bigint", "1")
                .replace("integer", "1953064034");
            let refused = client.batch_execute(&format!("SELECT {call}")).await;
            assert_eq!(state_of(refused), "42501", "{role} {call}");
        }
        client
            .batch_execute("SELECT pg_advisory_unlock_all()")
            .await
            .unwrap();
    }
    let client = tenants.db.connect_as(&writer, &writer).await;
    for append in [
        "SELECT tidewire.append('a', '1', subject => 's')",
        "SELECT count(*) FROM tidewire.my_events",
    ] {
        client.batch_execute(append).await.unwrap();
    }
    let client = tenants.db.connect_as(&loader, &loader).await;
    client
        .batch_execute(
            "INSERT INTO tidewire.events (tenant, id, topic) VALUES ('mine', 'loaded', 'a')",
        )
        .await
        .unwrap();
}

/// The owner of the log keeps them, who may be no superuser and serve it.
#[tokio::test]
async fn the_owner_of_the_log_keeps_its_locks_and_no_other() {
    let db = TestDb::new().await;
    let admin = db.connect().await;
    let role = db.login("tidewire_analyst").await;
    let given = format!(
        "ALTER FUNCTION tidewire.begin_epoch(text, boolean) OWNER TO {role}; ALTER TABLE tidewire.events OWNER TO {role}"
    );
    admin.batch_execute(&given).await.unwrap();
    admin
        .batch_execute(definitions::LOCKS_CLOSED)
        .await
        .unwrap();
    let owner = db.connect_as(&role, &role).await;
    owner
        .batch_execute(
            "SELECT pg_advisory_xact_lock(1953064034, 2), pg_try_advisory_lock(1953064036, 3)",
        )
        .await
        .unwrap();
    let undue = "SELECT count(*) FROM tidewire.undue_locks()";
    let undue: i64 = admin.query_one(undue, &[]).await.unwrap().get(0);
    assert_eq!(undue, 0, "it is at its work");
}

/// Run too early it would close out whoever is to migrate.
#[tokio::test]
async fn locks_are_not_closed_where_there_is_no_log() {
    let db = TestDb::new().await;
    let admin = db.connect().await;
    admin
        .batch_execute("DROP SCHEMA tidewire CASCADE")
        .await
        .unwrap();
    let refused = admin.batch_execute(definitions::LOCKS_CLOSED).await;
    assert_eq!(state_of(refused), "P0001");
}
