//! Roles that could get past their tenant: refused when they are given one, named if they come to it later.

use tidewire::pg::definitions;

use super::fixture::Tenants;
use crate::support::TestDb;
use crate::support::sql::state_of;

const ISSUES: &str = "SELECT string_agg(issue, '; ' ORDER BY issue) FROM tidewire.tenant_role_issues WHERE role = $1::text::name";

/// What is wrong with a role, and how it comes to it.
const STRONG: &[(&str, &str)] = &[
    ("ALTER ROLE {r} SUPERUSER", "it is a superuser"),
    ("ALTER ROLE {r} BYPASSRLS", "it has BYPASSRLS"),
    (
        "ALTER ROLE {r} REPLICATION",
        "it has REPLICATION, and so reads every change of the database",
    ),
    (
        "ALTER ROLE {r} CREATEROLE",
        "it has CREATEROLE, and so gives itself other roles",
    ),
    (
        "GRANT tidewire_loader TO {r}",
        "it is a member of tidewire_loader",
    ),
    (
        "GRANT tidewire_monitor TO {r}",
        "it is a member of tidewire_monitor",
    ),
    (
        "GRANT pg_read_all_data TO {r}",
        "it is a member of pg_read_all_data",
    ),
    (
        "GRANT pg_read_all_stats TO {r}",
        "it is a member of pg_read_all_stats",
    ),
    (
        "GRANT pg_read_server_files TO {r}",
        "it is a member of pg_read_server_files",
    ),
    (
        "GRANT pg_execute_server_program TO {r}",
        "it is a member of pg_execute_server_program",
    ),
    (
        "GRANT pg_signal_backend TO {r}",
        "it is a member of pg_signal_backend",
    ),
    (
        "ALTER FUNCTION tidewire.new_id() OWNER TO {r}",
        "it owns the log, or a part of it",
    ),
    (
        "GRANT SELECT (log_id) ON tidewire.log TO {r}",
        "it has been given tidewire.log",
    ),
    (
        "GRANT UPDATE ON SEQUENCE tidewire.events_clock TO {r}",
        "it has been given tidewire.events_clock",
    ),
    (
        "GRANT EXECUTE ON FUNCTION tidewire.retain(interval) TO {r}",
        "it has been given tidewire.retain(interval)",
    ),
    (
        "GRANT EXECUTE ON FUNCTION pg_try_advisory_lock(integer, integer) TO {r}",
        "it has been given pg_try_advisory_lock(integer,integer), and so may take the log's advisory locks",
    ),
    (
        "GRANT CREATE ON SCHEMA tidewire TO {r}",
        "it may create objects in schema tidewire",
    ),
    (
        "GRANT SELECT ON tidewire.epochs TO PUBLIC",
        "PUBLIC, and so it as well, has been given tidewire.epochs",
    ),
    (
        "GRANT SELECT ON tidewire.epochs TO tidewire_analyst",
        "role tidewire_analyst, of which it is a member, has been given tidewire.epochs",
    ),
];

#[tokio::test]
async fn a_role_that_could_get_past_its_tenant_is_refused_and_one_that_comes_to_it_is_named() {
    let tenants = Tenants::new().await;
    let held = tenants.role("held", "mine", false, false).await;
    let free = tenants.name("free");
    let owner = &tenants.owner;
    owner
        .batch_execute(&format!(
            "CREATE ROLE {free} LOGIN IN ROLE tidewire_analyst"
        ))
        .await
        .unwrap();
    for (grant, issue) in STRONG {
        owner
            .batch_execute(&format!(
                "BEGIN; {}; {}",
                grant.replace("{r}", &held),
                grant.replace("{r}", &free)
            ))
            .await
            .unwrap();
        let named: Option<String> = owner.query_one(ISSUES, &[&held]).await.unwrap().get(0);
        if !grant.contains("new_id") {
            assert_eq!(named.as_deref(), Some(*issue), "{grant}");
        }
        let map =
            format!("INSERT INTO tidewire.tenant_roles (role, tenant) VALUES ('{free}', 'mine')");
        let error = owner.batch_execute(&map).await.unwrap_err();
        let said = error.as_db_error().unwrap();
        assert_eq!(said.code().code(), "TW403");
        assert!(
            said.message()
                .ends_with(&format!("cannot be held to tenant mine: {issue}")),
            "{}",
            said.message()
        );
        owner.batch_execute("ROLLBACK").await.unwrap();
    }
    // Through another role, also where it would have to become that role first.
    let between = tenants.name("between");
    owner
        .batch_execute(&format!("CREATE ROLE {between} NOLOGIN; GRANT pg_read_all_data TO {between}; GRANT {between} TO {held}; ALTER ROLE {held} NOINHERIT"))
        .await
        .unwrap();
    let named: String = owner.query_one(ISSUES, &[&held]).await.unwrap().get(0);
    assert_eq!(named, "it is a member of pg_read_all_data");
    owner
        .batch_execute(&format!("REVOKE {between} FROM {held}"))
        .await
        .unwrap();
    let other = tenants.role("other", "tenant-s3ntinel", false, false).await;
    owner
        .batch_execute(&format!("GRANT {other} TO {held}"))
        .await
        .unwrap();
    let named: String = owner.query_one(ISSUES, &[&held]).await.unwrap().get(0);
    assert_eq!(
        named,
        format!("it is a member of role {other}, which belongs to tenant tenant-s3ntinel")
    );
    // What was left behind.
    owner
        .batch_execute(&format!("DROP ROLE {held}"))
        .await
        .unwrap();
    let named: String = owner.query_one(ISSUES, &[&held]).await.unwrap().get(0);
    assert_eq!(
        named,
        "there is no such role: whoever creates one of this name gets the tenant"
    );
    let nobody =
        "INSERT INTO tidewire.tenant_roles (role, tenant) VALUES ('nobody at all', 'mine')";
    assert_eq!(state_of(owner.batch_execute(nobody).await), "TW403");
}

/// TimescaleDB's `drop_chunk` asks for no privilege: whoever may connect removes a day of everybody's events with it.
#[tokio::test]
async fn what_timescale_leaves_open_is_named_and_can_be_closed() {
    let db = TestDb::new().await;
    let owner = db.connect().await;
    let role = db.login("tidewire_analyst").await;
    let open = "SELECT count(*) FROM tidewire.tenant_role_issues WHERE role IS NULL AND issue LIKE '%drop_chunk(regclass)%'";
    assert_eq!(
        owner.query_one(open, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    owner
        .batch_execute(definitions::TIMESCALE_CLOSED)
        .await
        .unwrap();
    assert_eq!(
        owner.query_one(open, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
    owner
        .batch_execute(definitions::LOCKS_CLOSED)
        .await
        .unwrap();
    let left = "SELECT count(*) FROM tidewire.tenant_role_issues WHERE role IS NULL";
    assert_eq!(
        owner.query_one(left, &[]).await.unwrap().get::<_, i64>(0),
        0
    );
    let chunk = "SELECT show_chunks('tidewire.events')::text LIMIT 1";
    let chunk: String = owner.query_one(chunk, &[]).await.unwrap().get(0);
    let stranger = db.connect_as(&role, &role).await;
    for schema in ["_timescaledb_functions", "_timescaledb_internal"] {
        let drop = format!("SELECT {schema}.drop_chunk('{chunk}')");
        assert_eq!(
            state_of(stranger.batch_execute(&drop).await),
            "42501",
            "{schema}"
        );
    }
    // Retention does not need it.
    owner
        .batch_execute("SELECT tidewire.retain('0 days')")
        .await
        .unwrap();
}
