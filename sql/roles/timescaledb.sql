-- Closes what TimescaleDB leaves open to everybody who may connect. A superuser runs it once in each database with a log in
-- which others have roles (the embedded database does it by itself), and again after ALTER EXTENSION timescaledb UPDATE:
--   psql "$DATABASE_URL" -f sql/roles/timescaledb.sql
-- tidewire.tenant_role_issues says whether it is needed.
--
-- drop_chunk removes a chunk of any hypertable and asks for no privilege (seen in 2.19.3). Nothing but TimescaleDB's own tests
-- calls it. merge_chunks ends the whole server where the edition is Apache, which does not have it (2.19.3).
DO $do$
DECLARE
    _open record;
BEGIN
    FOR _open IN
        SELECT p.oid::regprocedure AS signature, p.prokind FROM pg_proc AS p
          JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'timescaledb'
         WHERE p.proname = 'drop_chunk'
            OR (p.proname = 'merge_chunks' AND current_setting('timescaledb.license', true) = 'apache') LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', _open.signature);
    END LOOP;
END
$do$;
