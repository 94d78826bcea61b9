-- What every statement that wrote events owes the log, whoever wrote it: INSERT, COPY, MERGE or the server.
--
-- 1. Remembers the ids. A second use within the window is a unique violation (event_id_is_unique), also where the first
--    event has been erased.
-- 2. Refuses places and times that the log did not give (TW422): a row whose seq lies at or below the writer's floor
--    could already have been passed by a reader. Where the clock was set back meanwhile the writer is to try again (40001).
-- 3. Wakes the servers that sleep. A server that is busy reading holds no lock and needs no NOTIFY, which would take a
--    database-wide lock until the commit is over. See tidewire.wake_servers.
-- 4. Remembers for the audit which role wrote it (session_user), and of which topics. Rows are only ever added, so that nobody
--    waits for anybody, and they go with the transaction, or the savepoint, that goes. Not what a server writes, which counts it
--    by credential itself: it says so by its slot, which is believed of those who may act for the log. What the log itself
--    says (tidewire.…) is not counted of them either.
CREATE OR REPLACE FUNCTION tidewire.record_append()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _first    bigint;
    _last     bigint;
    _earliest timestamptz;
    _latest   timestamptz;
    _now      timestamptz := clock_timestamp();
    _done     text;
    -- With their rights the log's owner runs this.
    _is_owner boolean := pg_has_role(session_user, current_user, 'USAGE');
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
    -- Anybody may set it: it is believed of the log's owner alone.
    IF _is_owner AND current_setting('tidewire.preparing', true) = 'open' THEN
        RETURN NULL; -- tidewire.prepare_chunks() takes its row back before anybody sees it
    END IF;
    IF _first <= current_setting('tidewire.floor')::bigint
       OR _last > pg_sequence_last_value('tidewire.events_seq'::regclass) THEN
        RAISE EXCEPTION 'seq is given by the log: leave the column out'
            USING ERRCODE = 'TW422', COLUMN = 'seq', TABLE = 'events', SCHEMA = 'tidewire';
    END IF;
    -- The statement may have run for long (COPY), so only its start and its end bound the times of its rows.
    IF _earliest < statement_timestamp() - interval '1 minute' OR _latest > _now + interval '1 minute' THEN
        IF _now < statement_timestamp() THEN
            RAISE EXCEPTION 'the clock was set back while this was written: try again' USING ERRCODE = '40001';
        END IF;
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
    IF NOT _is_owner OR coalesce(current_setting('tidewire.own_slot', true), '') = '' THEN
        -- Of one statement 50 topics of a tenant are told apart, the most frequent ones: COPY may bring millions.
        INSERT INTO tidewire.sql_appends (role, tenant, topic, events, appended_at)
        SELECT session_user, c.tenant, CASE WHEN c.nth <= 50 THEN c.topic ELSE 'others' END, sum(c.events), _now
          FROM (SELECT a.tenant, a.topic, count(*) AS events,
                       row_number() OVER (PARTITION BY a.tenant ORDER BY count(*) DESC, a.topic) AS nth
                  FROM appended AS a
                 WHERE NOT (_is_owner AND starts_with(a.topic, 'tidewire.'))
                 GROUP BY a.tenant, a.topic) AS c
         GROUP BY c.tenant, 3;
    END IF;
    -- An assignment, not PERFORM: it is evaluated without a query.
    _done := tidewire.wake_servers();
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_append() IS
    'Trigger: remembers the ids of new events, refuses forged places, wakes the servers that sleep.';
