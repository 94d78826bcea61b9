-- Takes from everybody but the owner what TimescaleDB has passed on from the log's grants to its chunks. Statement triggers are
-- not copied: an INSERT aimed at a chunk would pass the floor and the ids by, and readers would pass the event. Whoever may
-- write to the log does so through the log, for which a chunk needs no grants.
CREATE OR REPLACE FUNCTION tidewire.close_chunks()
RETURNS integer LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _open   record;
    _closed integer := 0;
BEGIN
    FOR _open IN
        SELECT DISTINCT c.oid::regclass AS chunk,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
          FROM pg_inherits AS i
          JOIN pg_class AS c ON c.oid = i.inhrelid
         CROSS JOIN LATERAL (
               SELECT x.grantee FROM aclexplode(c.relacl) AS x
               UNION
               SELECT x.grantee FROM pg_attribute AS t, aclexplode(t.attacl) AS x WHERE t.attrelid = c.oid) AS a
         WHERE i.inhparent = 'tidewire.events'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', _open.chunk, _open.grantee);
        _closed := _closed + 1;
    END LOOP;
    RETURN _closed;
END
$fn$;
COMMENT ON FUNCTION tidewire.close_chunks() IS 'Takes from everybody but the owner the grants that chunks have got from the log.';
