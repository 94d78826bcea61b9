-- Removes the chunks whose events are all older than keep, and moves the log's beginning: cursors below it are answered
-- with "expired" and the earliest usable cursor, never with a silent jump. Returns the number of chunks removed.
-- The beginning moves in the same transaction as the chunks go.
CREATE OR REPLACE FUNCTION tidewire.retain(keep interval)
RETURNS integer LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _before  timestamptz := clock_timestamp() - retain.keep;
    _newest  record;
    _schema  name := (SELECT n.nspname FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
                       WHERE x.extname = 'timescaledb');
    _chunk   regclass;
    _last    record;
    _removed integer := 0;
BEGIN
    IF retain.keep < interval '0' THEN
        RAISE EXCEPTION 'keep must not be negative' USING ERRCODE = 'TW400';
    END IF;
    PERFORM pg_advisory_xact_lock(1953064034, 0);
    SELECT 0::bigint AS seq, to_timestamp(0) AS recorded_at INTO _newest;
    FOR _chunk IN EXECUTE format('SELECT %I.show_chunks(%L::regclass, older_than => %L::timestamptz)',
                                 _schema, 'tidewire.events', _before) LOOP
        EXECUTE format('SELECT c.seq, c.recorded_at FROM %s AS c ORDER BY c.seq DESC LIMIT 1', _chunk) INTO _last;
        IF _last.seq > _newest.seq THEN
            _newest := _last;
        END IF;
        _removed := _removed + 1;
    END LOOP;
    EXECUTE format('SELECT %I.drop_chunks(%L::regclass, older_than => %L::timestamptz)', _schema, 'tidewire.events', _before);
    UPDATE tidewire.log AS l SET retained_seq = _newest.seq, retained_at = _newest.recorded_at
     WHERE l.retained_seq < _newest.seq;
    RETURN _removed;
END
$fn$;
COMMENT ON FUNCTION tidewire.retain(interval) IS 'Removes whole chunks older than keep: SELECT tidewire.retain(''90 days'').';
