-- Creates the chunk of the present and the one after it, if they are not there. Returns how many it created.
--
-- TimescaleDB creates a chunk with the first row that falls into it, and keeps a lock on the log that no other writer
-- can pass until that row's transaction ends. An application's transaction that was first after midnight and stayed open
-- would stop everybody. So chunks are made ahead, by a row that comes and goes in a transaction of its own (the function
-- that creates chunks is not in the Apache edition). Nobody ever sees the row.
--
-- Gives up after half a second (55P03): a server that starts must not wait for an open transaction.
CREATE OR REPLACE FUNCTION tidewire.prepare_chunks()
RETURNS integer LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
DECLARE
    _interval interval := (SELECT d.time_interval FROM timescaledb_information.dimensions AS d
                            WHERE d.hypertable_schema = 'tidewire' AND d.hypertable_name = 'events'
                              AND d.column_name = 'recorded_at');
    _at       timestamptz;
    _id       text;
    _created  integer := 0;
BEGIN
    FOREACH _at IN ARRAY ARRAY[clock_timestamp(), clock_timestamp() + _interval] LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM timescaledb_information.chunks AS c
             WHERE c.hypertable_schema = 'tidewire' AND c.hypertable_name = 'events'
               AND c.range_start <= _at AND _at < c.range_end);
        _id := tidewire.new_id();
        PERFORM set_config('tidewire.preparing', 'open', true);
        PERFORM set_config('tidewire.erasure', 'open', true);
        INSERT INTO tidewire.events (seq, recorded_at, tenant, id, topic) VALUES (0, _at, 'tidewire', _id, 'tidewire.chunk');
        DELETE FROM tidewire.events AS e WHERE e.tenant = 'tidewire' AND e.id = _id AND e.recorded_at = _at;
        DELETE FROM tidewire.idempotency_keys AS k WHERE k.key = tidewire.idempotency_key('tidewire', _id);
        PERFORM set_config('tidewire.preparing', '', true);
        PERFORM set_config('tidewire.erasure', '', true);
        _created := _created + 1;
    END LOOP;
    PERFORM tidewire.close_chunks();
    RETURN _created;
END
$fn$;
COMMENT ON FUNCTION tidewire.prepare_chunks() IS 'Creates the chunks of the present and of the time after it, so that no writer has to.';
