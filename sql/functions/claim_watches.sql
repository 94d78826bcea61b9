-- One change of watches at a time, and none while somebody looks who has stalled: before a row is locked, so that two never wait
-- for each other. Whoever keeps watches in memory reads them again.
--
-- Locks: 1953064041, 0 until the end of the transaction, as src/consume/watch/store.rs, src/log/watches.rs and
-- tidewire.erase_subject() do.
CREATE OR REPLACE FUNCTION tidewire.claim_watches()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    PERFORM pg_advisory_xact_lock(1953064041, 0);
    PERFORM nextval('tidewire.watch_changes');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.claim_watches() IS 'Trigger: one change of watches at a time.';
