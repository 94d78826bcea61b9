-- Removes the chunks whose events are all older than keep, oldest first (tidewire.retain_oldest). Returns how many.
--
-- One transaction: the chunks that are removed stay locked until it ends, so call it by itself. Stops at the first chunk
-- that others hold: with a warning that names them, or with the error (55P03) if none could be removed.
CREATE OR REPLACE FUNCTION tidewire.retain(keep interval)
RETURNS integer LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _removed integer := 0;
BEGIN
    LOOP
        BEGIN
            EXIT WHEN NOT tidewire.retain_oldest(retain.keep);
        EXCEPTION WHEN lock_not_available THEN
            IF _removed = 0 THEN
                RAISE;
            END IF;
            RAISE WARNING '%', SQLERRM;
            EXIT;
        END;
        _removed := _removed + 1;
    END LOOP;
    RETURN _removed;
END
$fn$;
COMMENT ON FUNCTION tidewire.retain(interval) IS 'Removes whole chunks older than keep: SELECT tidewire.retain(''90 days'').';
