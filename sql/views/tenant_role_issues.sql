-- Roles that belong to a tenant and could get past it, a sentence each, and without a role what is open to all of them. Empty
-- where all is well.
--
-- By every role that it is a member of, also where it would have to SET ROLE: what that role may, it may.
CREATE OR REPLACE VIEW tidewire.tenant_role_issues AS
WITH member AS MATERIALIZED (
    SELECT t.role, t.tenant, r.oid AS role_oid, m.oid, m.rolname AS via, m.rolsuper, m.rolbypassrls, m.rolreplication,
           m.rolcreaterole, CASE WHEN m.oid = r.oid THEN 'it'
                                 ELSE 'role ' || quote_ident(m.rolname) || ', of which it is a member,' END AS who
      FROM tidewire.tenant_roles AS t
      JOIN pg_roles AS r ON r.rolname = t.role
      -- A superuser passes for a member of all.
      JOIN pg_roles AS m ON m.oid = r.oid OR (NOT r.rolsuper AND pg_has_role(r.oid, m.oid, 'MEMBER'))
), relation AS MATERIALIZED (
    SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_class AS c
     WHERE c.relnamespace = 'tidewire'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND c.relname <> 'my_events'
    UNION ALL
    SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'tidewire.events'::regclass
), granted AS MATERIALIZED (
    -- Who has been given what by name; 0 is PUBLIC.
    SELECT x.grantee, l.oid::regclass::text AS what FROM relation AS l CROSS JOIN LATERAL aclexplode(l.relacl) AS x
     WHERE x.grantee <> l.relowner
    UNION
    SELECT x.grantee, l.oid::regclass::text FROM relation AS l JOIN pg_attribute AS a ON a.attrelid = l.oid
     CROSS JOIN LATERAL aclexplode(a.attacl) AS x WHERE x.grantee <> l.relowner
    UNION
    SELECT x.grantee, p.oid::regprocedure::text
      FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS x
     WHERE p.pronamespace = 'tidewire'::regnamespace AND x.grantee <> p.proowner
       AND x.grantee NOT IN (SELECT g.oid FROM pg_roles AS g WHERE g.rolname IN ('tidewire_analyst', 'tidewire_writer'))
), open_to_all AS (
    SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid::regprocedure::text) AS what FROM pg_proc AS p
      JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'timescaledb'
     WHERE has_function_privilege('public', p.oid, 'EXECUTE')
       AND (p.proname = 'drop_chunk'
            OR (p.proname = 'merge_chunks' AND current_setting('timescaledb.license', true) = 'apache'))
), locking AS MATERIALIZED (
    -- What takes an advisory lock, and so the log's.
    SELECT p.oid, p.proowner, p.proacl FROM pg_proc AS p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND starts_with(replace(p.proname, 'try_', ''), 'pg_advisory_')
       AND strpos(p.proname, 'unlock') = 0
), issue AS (
    SELECT m.role, m.tenant, m.who || ' is a superuser' AS issue FROM member AS m WHERE m.rolsuper
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' has BYPASSRLS' FROM member AS m WHERE m.rolbypassrls AND NOT m.rolsuper
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' has REPLICATION, and so reads every change of the database'
      FROM member AS m WHERE m.rolreplication AND NOT m.rolsuper
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' has CREATEROLE, and so gives itself other roles'
      FROM member AS m WHERE m.rolcreaterole AND NOT m.rolsuper
    UNION ALL
    -- What PostgreSQL's own roles may that concerns others. By name: which there are depends on the version.
    SELECT m.role, m.tenant, 'it is a member of ' || quote_ident(m.via) FROM member AS m
     WHERE m.via IN ('tidewire_loader', 'tidewire_monitor', 'pg_read_all_data', 'pg_write_all_data', 'pg_monitor',
                     'pg_read_all_stats', 'pg_stat_scan_tables', 'pg_read_server_files', 'pg_write_server_files',
                     'pg_execute_server_program', 'pg_signal_backend', 'pg_maintain', 'pg_create_subscription')
    UNION ALL
    SELECT DISTINCT m.role, m.tenant, m.who || ' owns the log, or a part of it' FROM member AS m
     WHERE NOT m.rolsuper
       AND (m.oid IN (SELECT l.relowner FROM relation AS l)
            OR m.oid = (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'tidewire')
            OR m.oid IN (SELECT p.proowner FROM pg_proc AS p WHERE p.pronamespace = 'tidewire'::regnamespace))
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' owns the database' FROM member AS m
     WHERE NOT m.rolsuper AND m.oid = (SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database())
    UNION ALL
    SELECT m.role, m.tenant, 'it is a member of role ' || quote_ident(o.role) || ', which belongs to tenant ' || o.tenant
      FROM member AS m JOIN tidewire.tenant_roles AS o ON o.role = m.via AND o.tenant <> m.tenant
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' may create objects in schema tidewire' FROM member AS m
     WHERE NOT m.rolsuper AND has_schema_privilege(m.oid, 'tidewire', 'CREATE')
    UNION ALL
    SELECT m.role, m.tenant, m.who || ' has been given ' || string_agg(g.what, ', ' ORDER BY g.what)
      FROM member AS m JOIN granted AS g ON g.grantee = m.oid
     WHERE NOT m.rolsuper AND m.via NOT IN ('tidewire_loader', 'tidewire_monitor') GROUP BY m.role, m.tenant, m.who
    UNION ALL
    SELECT m.role, m.tenant, 'PUBLIC, and so it as well, has been given ' || string_agg(g.what, ', ' ORDER BY g.what)
      FROM member AS m JOIN granted AS g ON g.grantee = 0 WHERE m.oid = m.role_oid GROUP BY m.role, m.tenant
    UNION ALL
    -- Not a superuser's or the database's owner, who are named above.
    SELECT m.role, m.tenant, m.who || ' has been given ' || string_agg(l.oid::regprocedure::text, ', ' ORDER BY l.oid::regprocedure::text)
           || ', and so may take the log''s advisory locks'
      FROM member AS m JOIN locking AS l ON EXISTS (SELECT FROM aclexplode(l.proacl) AS x WHERE x.grantee = m.oid AND x.grantee <> l.proowner)
     WHERE NOT m.rolsuper AND m.oid <> (SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database())
     GROUP BY m.role, m.tenant, m.who
    UNION ALL
    SELECT NULL, NULL, 'whoever may connect may take the log''s advisory locks, and so hold up retention, readers and servers: '
           || 'run sql/roles/locks.sql'
     WHERE EXISTS (SELECT FROM locking AS l WHERE has_function_privilege('public', l.oid, 'EXECUTE'))
    UNION ALL
    SELECT t.role, t.tenant, 'there is no such role: whoever creates one of this name gets the tenant'
      FROM tidewire.tenant_roles AS t WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = t.role)
    UNION ALL
    SELECT NULL, NULL, 'whoever may connect may call ' || o.what || ': run sql/roles/timescaledb.sql'
      FROM open_to_all AS o WHERE o.what IS NOT NULL
    UNION ALL
    SELECT NULL, NULL, 'everybody may create objects in schema public, which others may take for their own'
      FROM pg_namespace AS n WHERE n.nspname = 'public' AND has_schema_privilege('public', n.oid, 'CREATE')
)
SELECT DISTINCT i.role, i.tenant, i.issue FROM issue AS i ORDER BY 1, 2, 3;
COMMENT ON VIEW tidewire.tenant_role_issues IS 'Roles of tenants that could get past their tenant, a sentence each; empty where all is well.';
