-- Forgets the ids that have left the deduplication window, oldest first, at most row_limit of them; returns how many.
CREATE OR REPLACE FUNCTION tidewire.expire_keys(row_limit integer DEFAULT 10000)
RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _count integer;
BEGIN
    DELETE FROM tidewire.idempotency_keys AS k
     WHERE k.ctid = ANY (ARRAY(
        SELECT o.ctid FROM tidewire.idempotency_keys AS o
         WHERE o.recorded_at < clock_timestamp() - (SELECT l.deduplication_window FROM tidewire.log AS l)
         LIMIT expire_keys.row_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS _count = ROW_COUNT;
    -- There are few of these.
    DELETE FROM tidewire.erased_ids AS x
     WHERE x.recorded_at < clock_timestamp() - (SELECT l.deduplication_window FROM tidewire.log AS l);
    RETURN _count;
END
$fn$;
COMMENT ON FUNCTION tidewire.expire_keys(integer) IS 'Forgets ids older than the deduplication window.';
