-- Closes PostgreSQL's functions that take advisory locks to those who have no use for them. The log goes by such locks, and whoever
-- may connect could take their numbers: retention would not happen, servers would not find their log, readers would wait. A superuser
-- runs it once in each database with a log in which others have roles, after `tidewire migrate` (the embedded database does it by itself):
--   psql "$DATABASE_URL" -f sql/roles/locks.sql
-- tidewire.tenant_role_issues says whether it is needed.
--
-- The owner of the log and of the database keep them, and so do roles that have been given them by name. Who appends needs none: the
-- log's functions run with their owner's rights. An application that takes locks of its own in this database is given them:
--   GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) TO app;
-- To let go of a lock stays open to all: drivers do so when they give a connection back.
DO $do$
DECLARE
    _owners text := (SELECT string_agg(DISTINCT quote_ident(r.rolname), ', ') FROM pg_roles AS r
                      WHERE r.oid IN (SELECT c.relowner FROM pg_class AS c WHERE c.oid = to_regclass('tidewire.events')
                                      UNION ALL SELECT d.datdba FROM pg_database AS d WHERE d.datname = current_database()));
    _open   regprocedure;
BEGIN
    IF to_regclass('tidewire.events') IS NULL THEN
        RAISE EXCEPTION 'there is no log in this database: run tidewire migrate first, whose role would be closed out';
    END IF;
    FOR _open IN
        SELECT p.oid FROM pg_proc AS p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND starts_with(replace(p.proname, 'try_', ''), 'pg_advisory_')
           AND strpos(p.proname, 'unlock') = 0 LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', _open, _owners);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', _open);
    END LOOP;
END
$do$;
