//! A role's life: made by an operator who is no superuser, marked, ended.

use super::fixture::Tenants;
use super::session::Session;
use crate::support::sql::state_of;

/// An administrator sees what the log says about its tenant, and no other tenant's.
#[tokio::test]
async fn an_administrator_sees_the_logs_own_topics() {
    let tenants = Tenants::new().await;
    tenants
        .owner
        .batch_execute("SELECT tidewire.append('tidewire.audit.read', '\"s3ntinel\"', subject => 'audited', tenant => 'tenant-s3ntinel');
                        SELECT tidewire.append('tidewire.audit.read', '1', subject => 'audited', tenant => 'mine')")
        .await
        .unwrap();
    // Two of them say that these roles were made.
    let audits = "SELECT count(*) FROM tidewire.my_events WHERE topic LIKE 'tidewire.%'";
    let of_subject = "SELECT count(*) FROM tidewire.my_subject('audited')";
    for (name, is_admin, expected) in [("reader", false, ["0", "0"]), ("admin", true, ["4", "1"])] {
        let role = tenants.role(name, "mine", false, is_admin).await;
        let session = Session::open(&tenants.db.url, &role).await;
        assert_eq!(
            [session.value(audits).await, session.value(of_subject).await],
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_subject_is_read_by_its_function_as_in_the_view() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    // What has a subject has not been erased.
    let both = "SELECT (SELECT jsonb_agg(to_jsonb(v) - 'erased_at' ORDER BY v.seq) FROM tidewire.my_events AS v WHERE v.subject = 'mine-deal-7')
                     = (SELECT jsonb_agg(to_jsonb(f) ORDER BY f.seq) FROM tidewire.my_subject('mine-deal-7') AS f)";
    assert_eq!(reader.value(both).await, "t");
    assert_eq!(
        reader
            .value("SELECT count(*) FROM tidewire.my_subject('mine-deal-7')")
            .await,
        "58"
    );
    let after = "SELECT count(*) FROM tidewire.my_subject('mine-deal-7',
                 (SELECT min(seq) FROM tidewire.my_events WHERE subject = 'mine-deal-7'))";
    assert_eq!(reader.value(after).await, "57");
}

/// As on a managed database: CREATEROLE and the log's owner, no superuser.
#[tokio::test]
async fn an_operator_who_is_no_superuser_makes_and_ends_roles() {
    let tenants = Tenants::new().await;
    let operator = tenants.name("operator");
    tenants
        .owner
        .batch_execute(&format!(
            "CREATE ROLE {operator} LOGIN CREATEROLE PASSWORD '{operator}';
             GRANT tidewire_analyst, tidewire_writer TO {operator} WITH ADMIN OPTION;
             GRANT USAGE ON SCHEMA tidewire TO {operator};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidewire TO {operator};
             GRANT SELECT, INSERT, DELETE ON tidewire.tenant_roles TO {operator};
             GRANT SELECT ON tidewire.tenant_role_issues TO {operator}"
        ))
        .await
        .unwrap();
    let client = tenants.db.connect_as(&operator, &operator).await;
    let role = tenants.name("made");
    let create = format!("SELECT tidewire.create_tenant_role('{role}', 'mine', true)");
    client.batch_execute(&create).await.unwrap();
    assert_eq!(state_of(client.batch_execute(&create).await), "42710");
    tenants
        .owner
        .batch_execute(&format!("ALTER ROLE {role} PASSWORD '{role}'"))
        .await
        .unwrap();
    let session = Session::open(&tenants.db.url, &role).await;
    assert_eq!(
        session
            .run("SELECT tidewire.append('a.b', '1')")
            .await
            .state,
        "ok"
    );
    let dropped = client
        .query_one("SELECT tidewire.drop_tenant_role($1)", &[&role])
        .await
        .unwrap();
    assert!(dropped.get::<_, bool>(0));
    let left = "SELECT count(*) FROM pg_roles WHERE rolname = $1::text::name";
    assert_eq!(
        tenants
            .owner
            .query_one(left, &[&role])
            .await
            .unwrap()
            .get::<_, i64>(0),
        0
    );
    tenants
        .owner
        .batch_execute(&format!("DROP OWNED BY {operator}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_password_itself_is_refused_and_so_is_a_role_of_no_tenant() {
    let tenants = Tenants::new().await;
    for (statement, state) in [
        (
            "SELECT tidewire.create_tenant_role('x', 'mine', verifier => 'hunter2')",
            "TW400",
        ),
        (
            "SELECT tidewire.create_tenant_role('x', 'not a tenant')",
            "23514",
        ),
        ("SELECT tidewire.drop_tenant_role('postgres')", "TW404"),
        ("SELECT tidewire.drop_tenant_role('nobody')", "TW404"),
    ] {
        assert_eq!(
            state_of(tenants.owner.batch_execute(statement).await),
            state,
            "{statement}"
        );
    }
}

/// A role that owns something stays; what it sees ends nonetheless, also in sessions that are open.
#[tokio::test]
async fn a_role_that_owns_something_loses_its_tenant_and_its_login() {
    let tenants = Tenants::new().await;
    let role = tenants.role("owner", "mine", false, false).await;
    tenants
        .owner
        .batch_execute(&format!(
            "CREATE TABLE public.kept (n int); ALTER TABLE public.kept OWNER TO {role}"
        ))
        .await
        .unwrap();
    let session = Session::open(&tenants.db.url, &role).await;
    let gone = tenants
        .owner
        .query_one("SELECT tidewire.drop_tenant_role($1)", &[&role])
        .await
        .unwrap();
    assert!(!gone.get::<_, bool>(0));
    let state = "SELECT rolcanlogin OR EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) FROM pg_roles AS r
                  WHERE rolname = $1::text::name";
    assert!(
        !tenants
            .owner
            .query_one(state, &[&role])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    assert!(session.is_over().await);
    tenants
        .owner
        .batch_execute("DROP TABLE public.kept")
        .await
        .unwrap();
}
