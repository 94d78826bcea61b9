-- Removes the oldest chunk if all its events are older than keep, and moves the log's beginning in the same transaction:
-- cursors below it are answered with "expired" and the earliest usable cursor, never with a silent jump. Returns whether
-- there was one.
--
-- Locks the chunk first: what somebody commits into it while this waits is then read with the rest, and the beginning lies
-- after it.
--
-- Writes tidewire.audit.retention.applied into the log of each tenant that had events there, but for the log's own: before says up
-- to when. Not how many: counting them would hold the chunk for as long as reading it takes.
--
-- Refuses: TW400 a negative time, or a transaction that does not see what was committed while it waited · 55P03 if others
-- hold the chunk for half a second (pg_dump, a long query): whoever reads the log would wait as long as this.
CREATE OR REPLACE FUNCTION tidewire.retain_oldest(keep interval)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
DECLARE
    _schema name := (SELECT n.nspname FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
                      WHERE x.extname = 'timescaledb');
    _chunk  regclass;
    _start  timestamptz;
    _end    timestamptz;
    _last   record;
    _tenants text[];
BEGIN
    IF retain_oldest.keep < interval '0' THEN
        RAISE EXCEPTION 'keep must not be negative' USING ERRCODE = 'TW400';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'retention needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    PERFORM pg_advisory_xact_lock(1953064034, 0);
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass, c.range_start, c.range_end
      INTO _chunk, _start, _end
      FROM timescaledb_information.chunks AS c
     WHERE c.hypertable_schema = 'tidewire' AND c.hypertable_name = 'events'
       AND c.range_end <= clock_timestamp() - retain_oldest.keep
     ORDER BY c.range_end LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', _chunk);
    EXECUTE format('SELECT c.seq, c.recorded_at FROM %s AS c ORDER BY c.seq DESC LIMIT 1', _chunk) INTO _last;
    UPDATE tidewire.log AS l SET retained_seq = _last.seq, retained_at = _last.recorded_at WHERE l.retained_seq < _last.seq;
    -- From tenant to tenant by the index.
    EXECUTE format(
        'WITH RECURSIVE held AS (
             (SELECT c.tenant FROM %1$s AS c ORDER BY c.tenant LIMIT 1)
             UNION ALL
             SELECT (SELECT c.tenant FROM %1$s AS c WHERE c.tenant > h.tenant ORDER BY c.tenant LIMIT 1)
               FROM held AS h WHERE h.tenant IS NOT NULL)
         SELECT array_agg(h.tenant) FROM held AS h
          WHERE EXISTS (SELECT FROM %1$s AS c WHERE c.tenant = h.tenant AND NOT starts_with(c.topic, ''tidewire.''))', _chunk)
       INTO _tenants;
    EXECUTE format('SELECT %I.drop_chunks(%L::regclass, older_than => %L::timestamptz, newer_than => %L::timestamptz)',
                   _schema, 'tidewire.events', _end, _start);
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    SELECT t.tenant, tidewire.new_id(), 'tidewire.audit.retention.applied', session_user,
           jsonb_build_object('before', to_char(_end AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
      FROM unnest(_tenants) AS t(tenant);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    IF _chunk IS NULL THEN
        RAISE EXCEPTION 'the oldest chunk is not removed: another session removes chunks' USING ERRCODE = '55P03';
    END IF;
    RAISE EXCEPTION 'the oldest chunk is not removed: it is in use by %', tidewire.users_of(_chunk)
        USING ERRCODE = '55P03';
END
$fn$;
COMMENT ON FUNCTION tidewire.retain_oldest(interval) IS 'Removes the oldest chunk if all its events are older than keep; says whether there was one.';
