-- Advisory locks that the log goes by and that somebody holds who is not at the log's work: a role that may do none of it, which took
-- the number by PostgreSQL's own functions, or a transaction that has done nothing with its lock for a minute. What they hold does
-- not happen, and whoever leaves a lock to "another that is at it" would leave it to nobody.
--
-- class, key: of these alone. purpose: what the lock stands for. pid: NULL for a prepared transaction. holder: a text for a message.
--
-- Not those that who appends holds as well (1953064035 to 37): tidewire.writers shows who holds readers back.
CREATE OR REPLACE FUNCTION tidewire.undue_locks(class integer DEFAULT NULL, key integer DEFAULT NULL)
RETURNS TABLE (class integer, key integer, purpose text, pid integer, holder text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
    WITH kept (class, key, purpose, is_for_long) AS (
        VALUES (1953064033, NULL::integer, 'a server''s slot', true),
               (1953064034, 0, 'the removal of chunks', false),
               (1953064034, 1, 'tenants'' retention', false),
               (1953064034, 2, 'the log''s epochs', false),
               (1953064038, NULL, 'a tenant''s rules of retention', false),
               (1953064040, NULL, 'a consumer', true),
               (1953064041, 0, 'watches', false)
    ), held AS MATERIALIZED (
        SELECT k.class, l.objid::bigint::bit(32)::integer AS key, k.purpose, l.pid, coalesce(a.usesysid, r.oid) AS role_oid,
               a.application_name, a.state,
               NOT k.is_for_long AND coalesce(CASE WHEN starts_with(a.state, 'idle') THEN a.state_change END, x.prepared)
                   < clock_timestamp() - interval '1 minute' AS is_left
          FROM kept AS k
          JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = k.class::oid
               AND (k.key IS NULL OR l.objid = k.key::oid) AND l.pid IS DISTINCT FROM pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
          LEFT JOIN pg_prepared_xacts AS x ON l.pid IS NULL AND x.transaction::text = split_part(l.virtualtransaction, '/', 2)
          LEFT JOIN pg_roles AS r ON r.rolname = x.owner
         WHERE k.class = coalesce(undue_locks.class, k.class)
    )
    SELECT h.class, h.key, h.purpose, h.pid,
           format('%s (%s, role %s, %s)', coalesce('process ' || h.pid, 'a prepared transaction'),
                  coalesce(nullif(h.application_name, ''), 'without a name'), coalesce(quote_ident(r.rolname), 'unknown'),
                  coalesce(h.state, 'state unknown'))
      FROM held AS h LEFT JOIN pg_roles AS r ON r.oid = h.role_oid
     WHERE h.key = coalesce(undue_locks.key, h.key)
       AND (h.is_left IS TRUE OR NOT coalesce(
               pg_has_role(h.role_oid, (SELECT c.relowner FROM pg_class AS c WHERE c.oid = 'tidewire.events'::regclass), 'MEMBER')
               OR has_table_privilege(h.role_oid, 'tidewire.retention_rules', 'INSERT, UPDATE, DELETE')
               OR has_table_privilege(h.role_oid, 'tidewire.watches', 'INSERT, UPDATE, DELETE')
               OR EXISTS (SELECT FROM pg_proc AS p
                           WHERE p.pronamespace = 'tidewire'::regnamespace
                             AND p.proname IN ('apply_retention', 'retain_by_rules', 'erase_subject')
                             AND has_function_privilege(h.role_oid, p.oid, 'EXECUTE')), false))
     ORDER BY h.class, h.key, h.pid;
$fn$;
COMMENT ON FUNCTION tidewire.undue_locks(integer, integer) IS
    'Advisory locks of the log that somebody holds who is not at its work; empty where all is well.';
