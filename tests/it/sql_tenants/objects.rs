//! What a tenant's role may touch in the log's schema, object by object: whatever is new must be decided upon here.

use super::fixture::Tenants;

/// Functions that a role may call, and relations it may use, each with how. PUBLIC, groups and the role itself together.
const MAY: &str = "
    SELECT p.oid::regprocedure::text || ' EXECUTE' FROM pg_proc AS p
     WHERE p.pronamespace = 'tidewire'::regnamespace AND has_function_privilege($1::text, p.oid, 'EXECUTE')
    UNION ALL
    SELECT c.oid::regclass::text || ' ' || v.privilege
      FROM pg_class AS c CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS v(privilege)
     WHERE (c.relnamespace = 'tidewire'::regnamespace
            OR c.oid IN (SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = 'tidewire.events'::regclass))
       AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
       AND (has_table_privilege($1, c.oid, v.privilege)
            OR CASE WHEN v.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                    THEN has_any_column_privilege($1, c.oid, v.privilege) END)
    UNION ALL
    SELECT c.oid::regclass::text || ' ' || v.privilege
      FROM pg_class AS c CROSS JOIN unnest('{USAGE,SELECT,UPDATE}'::text[]) AS v(privilege)
     WHERE c.relkind = 'S' AND c.relnamespace = 'tidewire'::regnamespace
       AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege($1, c.oid, v.privilege) END
    UNION ALL
    SELECT 'schema ' || n.nspname || ' ' || v.privilege
      FROM pg_namespace AS n CROSS JOIN unnest('{USAGE,CREATE}'::text[]) AS v(privilege)
     WHERE n.nspname IN ('tidewire', 'public', '_timescaledb_internal') AND has_schema_privilege($1, n.oid, v.privilege)
    UNION ALL
    SELECT 'may become ' || r.rolname FROM pg_roles AS r
     WHERE r.rolname <> $1 AND current_setting('server_version_num')::int >= 160000 AND pg_has_role($1, r.oid, 'SET')
     ORDER BY 1";

const READS: [&str; 9] = [
    "schema _timescaledb_internal USAGE",
    "schema public USAGE",
    "schema tidewire USAGE",
    "tidewire.cursor(bigint,timestamp with time zone) EXECUTE",
    "tidewire.current_tenant() EXECUTE",
    "tidewire.cursor_seq(text) EXECUTE",
    "tidewire.my_events SELECT",
    "tidewire.my_subject(text,bigint) EXECUTE",
    "tidewire.sees_reserved() EXECUTE",
];
const WRITES: &str = "tidewire.append(text,jsonb,text,text,text,text,timestamp with time zone,text,jsonb,text,bytea,text,text,text) EXECUTE";

#[tokio::test]
async fn a_tenants_role_may_touch_these_objects_and_no_others() {
    let tenants = Tenants::new().await;
    for (name, may_write) in [("reader", false), ("writer", true)] {
        let role = tenants.role(name, "mine", may_write, false).await;
        let rows = tenants.owner.query(MAY, &[&role]).await.unwrap();
        let mut may: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let mut expected: Vec<&str> = READS.to_vec();
        expected.extend(may_write.then_some(WRITES));
        may.sort_unstable();
        expected.sort_unstable();
        assert_eq!(may, expected, "{name}");
    }
}

/// What runs with the owner's rights must not look for names where its caller can put some.
#[tokio::test]
async fn every_function_with_the_owners_rights_has_a_fixed_search_path() {
    let tenants = Tenants::new().await;
    let query = "SELECT p.oid::regprocedure::text FROM pg_proc AS p
                  WHERE p.pronamespace = 'tidewire'::regnamespace AND p.prosecdef
                    AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)";
    let open = tenants.owner.query(query, &[]).await.unwrap();
    assert!(open.is_empty(), "{:?}", open[0].get::<_, &str>(0));
}
