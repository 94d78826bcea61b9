-- Removes the oldest chunk if the rules of their tenants keep none of its events, and moves the beginning of these tenants in
-- the same transaction: their cursors below it are answered with "expired", those of others go on. Returns whether it did.
--
-- The oldest one alone: what lies before a tenant's beginning must be gone. Looks without a lock first, since most chunks
-- hold something that is kept. Then it keeps the rules as they are until the chunk is gone: whoever changes one waits, so
-- that none is answered as set whose events go nevertheless.
--
-- Two at once do not fail: where another session removes chunks, or applies rules, for half a second, the chunk is left to it. A
-- NOTICE says so, and the answer is false.
--
-- Writes tidewire.audit.retention.applied into the log of each tenant that has lost what was not erased, for each rule.
--
-- Locks, in the order of tidewire.apply_retention(): the rules, the version of erasures, the chunk.
-- Refuses: TW400 a transaction that does not see what was committed while it waited · 55P03 if others hold one of these for half a
-- second: whose rules are being changed, an erasure, who reads the chunk. The message names them.
CREATE OR REPLACE FUNCTION tidewire.retain_by_rules()
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
DECLARE
    _schema name := (SELECT n.nspname FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
                      WHERE x.extname = 'timescaledb');
    _chunk  record;
    _held   record;
    _query  text;
    _wanted regclass := 'tidewire.retention_rules';
    _applied jsonb := '[]';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'retention needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass AS name, c.range_start, c.range_end INTO _chunk
      FROM timescaledb_information.chunks AS c
     WHERE c.hypertable_schema = 'tidewire' AND c.hypertable_name = 'events'
     ORDER BY c.range_end LIMIT 1;
    IF NOT FOUND OR (_chunk.range_end > clock_timestamp()
            - (SELECT min(r.days) FROM tidewire.retention_rules AS r) * interval '24 hours') IS NOT FALSE THEN
        RETURN false;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(1953064034, 0);
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'another session removes chunks: the oldest one is left to it';
        RETURN false;
    END;
    _query := format(
        'SELECT h.tenant, h.last_seq, h.last_at, h.events, (
                SELECT r.pattern FROM tidewire.retention_rules AS r
                 WHERE r.tenant = h.tenant AND h.topic ~ r.topic_regex
                   AND (r.is_reserved OR NOT starts_with(h.topic, ''tidewire.''))
                   AND h.latest < clock_timestamp() - r.days * interval ''24 hours''
                   AND NOT EXISTS (SELECT FROM tidewire.retention_rules AS o
                                    WHERE o.tenant = h.tenant AND o.specificity > r.specificity AND h.topic ~ o.topic_regex
                                      AND (o.is_reserved OR NOT starts_with(h.topic, ''tidewire.'')))) AS pattern
           FROM (SELECT c.tenant, c.topic, max(c.seq) AS last_seq, max(c.recorded_at) AS latest,
                        (array_agg(c.recorded_at ORDER BY c.seq DESC))[1] AS last_at,
                        count(*) FILTER (WHERE c.erased_at IS NULL) AS events
                   FROM %s AS c GROUP BY c.tenant, c.topic) AS h', _chunk.name);
    FOR _held IN EXECUTE _query LOOP
        IF _held.pattern IS NULL THEN
            RETURN false;
        END IF;
    END LOOP;
    -- Whoever applies rules has them, for a second or longer.
    BEGIN
        PERFORM pg_advisory_xact_lock(1953064034, 1);
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'another session applies tenants'' rules: the oldest chunk is left to it';
        RETURN false;
    END;
    -- Not SHARE: what it has removed is written into these rows below.
    LOCK TABLE tidewire.retention_rules IN SHARE ROW EXCLUSIVE MODE;
    -- Before the chunk, as an erasure does.
    _wanted := 'tidewire.erasure_changes';
    UPDATE tidewire.erasure_changes AS c SET version = c.version + 1;
    _wanted := _chunk.name;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', _chunk.name);
    -- Again: what was committed meanwhile, events and rules, is read with the rest. All of it before any tenant's beginning is moved.
    FOR _held IN EXECUTE _query LOOP
        IF _held.pattern IS NULL THEN
            RETURN false;
        END IF;
    END LOOP;
    _wanted := 'tidewire.retained_tenants';
    FOR _held IN EXECUTE _query LOOP
        INSERT INTO tidewire.retained_tenants AS t (tenant, retained_seq, retained_at)
        VALUES (_held.tenant, _held.last_seq, _held.last_at)
            ON CONFLICT (tenant) DO UPDATE SET retained_seq = excluded.retained_seq, retained_at = excluded.retained_at
          WHERE t.retained_seq < excluded.retained_seq;
        INSERT INTO tidewire.erased_tenants AS t (tenant, version, through_seq)
        SELECT _held.tenant, c.version, _held.last_seq FROM tidewire.erasure_changes AS c
            ON CONFLICT (tenant) DO UPDATE
            SET version = excluded.version, through_seq = greatest(t.through_seq, excluded.through_seq);
        UPDATE tidewire.retention_rules AS r
           SET removed = r.removed + _held.events,
               removed_at = CASE WHEN _held.events > 0 THEN clock_timestamp() ELSE r.removed_at END
         WHERE r.tenant = _held.tenant AND r.pattern = _held.pattern;
        _applied := _applied || jsonb_build_object('tenant', _held.tenant, 'pattern', _held.pattern, 'events', _held.events);
    END LOOP;
    EXECUTE format('SELECT %I.drop_chunks(%L::regclass, older_than => %L::timestamptz, newer_than => %L::timestamptz)',
                   _schema, 'tidewire.events', _chunk.range_end, _chunk.range_start);
    -- Last: an open writer holds readers back, so it waits for nobody.
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    SELECT a.tenant, tidewire.new_id(), 'tidewire.audit.retention.applied', session_user,
           jsonb_build_object('pattern', a.pattern, 'days', r.days, 'events', a.events)
      FROM (SELECT x.tenant, x.pattern, sum(x.events)::bigint AS events
              FROM jsonb_to_recordset(_applied) AS x(tenant text, pattern text, events bigint)
             GROUP BY x.tenant, x.pattern HAVING sum(x.events) > 0) AS a
      JOIN tidewire.retention_rules AS r ON r.tenant = a.tenant AND r.pattern = a.pattern;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the oldest chunk is not removed: % is in use by %', _wanted, tidewire.users_of(_wanted) USING ERRCODE = '55P03';
END
$fn$;
COMMENT ON FUNCTION tidewire.retain_by_rules() IS 'Removes the oldest chunk if tenants'' rules keep none of its events; says whether it did.';
