-- What every statement that wrote events owes the log, whoever wrote it: INSERT, COPY, MERGE or the server.
--
-- 1. Remembers the ids. A second use within the window is a unique violation (event_id_is_unique), also where the first
--    event has been erased.
-- 2. Refuses places and times that the log did not give (TW422): a row whose seq lies at or below the writer's floor
--    could already have been passed by a reader.
-- 3. Wakes the servers that sleep. A server that is busy reading holds no lock and needs no NOTIFY, which would take a
--    database-wide lock until the commit is over. See tidewire.wake_servers.
CREATE OR REPLACE FUNCTION tidewire.record_append()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _first    bigint;
    _last     bigint;
    _earliest timestamptz;
    _latest   timestamptz;
    _now      timestamptz := clock_timestamp();
    _done     text;
BEGIN
    WITH remembered AS (
        INSERT INTO tidewire.idempotency_keys AS k (seq, recorded_at, key)
        SELECT a.seq, a.recorded_at, tidewire.idempotency_key(a.tenant, a.id) FROM appended AS a
        RETURNING k.seq, k.recorded_at
    )
    SELECT min(r.seq), max(r.seq), min(r.recorded_at), max(r.recorded_at)
      INTO _first, _last, _earliest, _latest FROM remembered AS r;
    IF _first IS NULL THEN
        RETURN NULL;
    END IF;
    IF current_setting('tidewire.preparing', true) = 'open' THEN
        RETURN NULL; -- tidewire.prepare_chunks() takes its row back before anybody sees it
    END IF;
    IF _first <= current_setting('tidewire.floor')::bigint
       OR _last > pg_sequence_last_value('tidewire.events_seq'::regclass) THEN
        RAISE EXCEPTION 'seq is given by the log: leave the column out'
            USING ERRCODE = 'TW422', COLUMN = 'seq', TABLE = 'events', SCHEMA = 'tidewire';
    END IF;
    -- The statement may have run for long (COPY), so only its start and its end bound the times of its rows.
    IF _earliest < statement_timestamp() - interval '1 minute' OR _latest > _now + interval '1 minute' THEN
        RAISE EXCEPTION 'recorded_at is given by the log: leave the column out, or use occurred_at'
            USING ERRCODE = 'TW422', COLUMN = 'recorded_at', TABLE = 'events', SCHEMA = 'tidewire';
    END IF;
    -- After the ids were taken, in a new snapshot: an erasure that moves one of them has either ended, or waits for this.
    IF EXISTS (SELECT FROM tidewire.erased_ids) THEN
        -- As tidewire.erased_key(), without a call for each; as an array, by the index.
        IF EXISTS (SELECT FROM tidewire.erased_ids AS x
                    WHERE x.key = ANY (ARRAY(SELECT sha256(uuid_send(l.log_id) || convert_to(a.tenant || '/' || a.id, 'UTF8'))
                                               FROM appended AS a CROSS JOIN tidewire.log AS l))) THEN
            RAISE EXCEPTION 'the id of an event that was erased' USING ERRCODE = '23505', CONSTRAINT = 'event_id_is_unique',
                TABLE = 'idempotency_keys', SCHEMA = 'tidewire';
        END IF;
    END IF;
    -- An assignment, not PERFORM: it is evaluated without a query.
    _done := tidewire.wake_servers();
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_append() IS
    'Trigger: remembers the ids of new events, refuses forged places, wakes the servers that sleep.';
