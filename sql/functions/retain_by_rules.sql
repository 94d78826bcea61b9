-- Removes the oldest chunk if the rules of their tenants keep none of its events, and moves the beginning of these tenants in
-- the same transaction: their cursors below it are answered with "expired", those of others go on. Returns whether it did.
--
-- The oldest one alone: what lies before a tenant's beginning must be gone. Looks without a lock, since most chunks hold
-- something that is kept, and reading one takes long. Then it keeps the rules as they are until the chunk is gone: whoever
-- changes one waits, so that none is answered as set whose events go nevertheless.
--
-- What it has seen without a lock holds under it if nothing has changed since:
--   events   It took the watermark before. Up to there nothing could be committed any more, and nobody who has the chunk's lock
--            leaves one open: if the chunk's last event lies there, all of it was seen.
--   rules    Those of its tenants were the same. That time has gone on makes nothing kept again.
--   erasures Each notes its tenant with a number that rises. It makes nothing kept, but leaves less to count.
-- Where one of the first two is not so, it reads the chunk again, and where one of its tenants has had events erased, what these have
-- in it; writers of that chunk, erasures and changes of rules wait for that. Erasures of others cost nothing. Readers go on until it
-- is removed.
--
-- Two at once do not fail: where another session removes chunks, or applies rules, for half a second, the chunk is left to it. A
-- NOTICE says so, and the answer is false.
--
-- Writes tidewire.audit.retention.applied into the log of each tenant that has lost what was not erased, for each rule.
--
-- Locks, in the order of tidewire.apply_retention(): that chunks are removed (1953064034, 0), that rules are applied
-- (1953064034, 1), the rules, the version of erasures, the chunk against writers, tenants' beginnings, the chunk against all.
-- Refuses: TW400 a transaction that does not see what was committed while it waited · 55P03 if others hold one of these for half a
-- second: whose rules are being changed, an erasure, who reads the chunk; or the first two numbers, and is not at that work
-- (tidewire.undue_locks()). The message names them.
CREATE OR REPLACE FUNCTION tidewire.retain_by_rules()
RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
DECLARE
    _schema name := (SELECT n.nspname FROM pg_extension AS x JOIN pg_namespace AS n ON n.oid = x.extnamespace
                      WHERE x.extname = 'timescaledb');
    _chunk   record;
    _seen_to bigint;
    _version bigint;
    _tenants text[];
    _rules   text;
    _last    bigint;
    _newer   bigint;
    _erased  text[];
    _holders text;
    _is_kept boolean;
    _lost    jsonb;
    _wanted  regclass := 'tidewire.retention_rules';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'retention needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    IF NOT EXISTS (SELECT FROM tidewire.retention_rules) THEN
        RETURN false;
    END IF;
    -- Before the chunk is looked for: who has it may be removing that one.
    BEGIN
        PERFORM pg_advisory_xact_lock(1953064034, 0);
    EXCEPTION WHEN lock_not_available THEN
        SELECT string_agg(u.holder, ', ') INTO _holders FROM tidewire.undue_locks(1953064034, 0) AS u;
        IF _holders IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = '55P03';
        END IF;
        RAISE NOTICE 'another session removes chunks: the oldest one is left to it';
        RETURN false;
    END;
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass AS name, c.range_start, c.range_end INTO _chunk
      FROM timescaledb_information.chunks AS c
     WHERE c.hypertable_schema = 'tidewire' AND c.hypertable_name = 'events'
     ORDER BY c.range_end LIMIT 1;
    IF NOT FOUND OR (_chunk.range_end > clock_timestamp()
            - (SELECT min(r.days) FROM tidewire.retention_rules AS r) * interval '24 hours') IS NOT FALSE THEN
        RETURN false;
    END IF;
    -- Both before the chunk is read, each in a snapshot of its own: what comes in between is noticed below.
    SELECT w.watermark INTO _seen_to FROM tidewire.watermark() AS w;
    SELECT c.version INTO _version FROM tidewire.erasure_changes AS c;
    -- One statement: the rules that are compared are those that were applied.
    WITH lost AS MATERIALIZED (SELECT l.* FROM tidewire.lost_by_rules(_chunk.name) AS l)
    SELECT coalesce(bool_or(l.pattern IS NULL), false), coalesce(jsonb_agg(to_jsonb(l)), '[]'), array_agg(DISTINCT l.tenant),
           tidewire.rules_of(array_agg(DISTINCT l.tenant))
      INTO _is_kept, _lost, _tenants, _rules FROM lost AS l;
    IF _is_kept THEN
        RETURN false;
    END IF;
    -- Whoever applies rules has them, for a second or longer.
    BEGIN
        PERFORM pg_advisory_xact_lock(1953064034, 1);
    EXCEPTION WHEN lock_not_available THEN
        SELECT string_agg(u.holder, ', ') INTO _holders FROM tidewire.undue_locks(1953064034, 1) AS u;
        IF _holders IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = '55P03';
        END IF;
        RAISE NOTICE 'another session applies tenants'' rules: the oldest chunk is left to it';
        RETURN false;
    END;
    -- Not SHARE: what it has removed is written into these rows below.
    LOCK TABLE tidewire.retention_rules IN SHARE ROW EXCLUSIVE MODE;
    -- Before the chunk, as an erasure does.
    _wanted := 'tidewire.erasure_changes';
    UPDATE tidewire.erasure_changes AS c SET version = c.version + 1 RETURNING c.version INTO _newer;
    _wanted := _chunk.name;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', _chunk.name);
    EXECUTE format('SELECT max(c.seq) FROM %s AS c', _chunk.name) INTO _last;
    IF _last > _seen_to OR tidewire.rules_of(_tenants) <> _rules THEN
        SELECT coalesce(bool_or(l.pattern IS NULL), false), coalesce(jsonb_agg(to_jsonb(l)), '[]') INTO _is_kept, _lost
          FROM tidewire.lost_by_rules(_chunk.name) AS l;
        IF _is_kept THEN
            RETURN false;
        END IF;
    ELSE
        SELECT array_agg(t.tenant) INTO _erased FROM tidewire.erased_tenants AS t
         WHERE t.tenant = ANY (_tenants) AND t.version > _version;
        IF _erased IS NOT NULL THEN
            SELECT coalesce(jsonb_agg(o.one), '[]') INTO _lost
              FROM (SELECT l.one FROM jsonb_array_elements(_lost) AS l(one) WHERE l.one ->> 'tenant' <> ALL (_erased)
                    UNION ALL
                    SELECT to_jsonb(l) FROM tidewire.lost_by_rules(_chunk.name, _erased) AS l) AS o;
        END IF;
    END IF;
    _wanted := 'tidewire.retained_tenants';
    INSERT INTO tidewire.retained_tenants AS t (tenant, retained_seq, retained_at)
    SELECT DISTINCT ON (l.tenant) l.tenant, l.last_seq, l.last_at
      FROM jsonb_to_recordset(_lost) AS l(tenant text, last_seq bigint, last_at timestamptz) ORDER BY l.tenant, l.last_seq DESC
        ON CONFLICT (tenant) DO UPDATE SET retained_seq = excluded.retained_seq, retained_at = excluded.retained_at
      WHERE t.retained_seq < excluded.retained_seq;
    INSERT INTO tidewire.erased_tenants AS t (tenant, version, through_seq)
    SELECT l.tenant, _newer, max(l.last_seq) FROM jsonb_to_recordset(_lost) AS l(tenant text, last_seq bigint) GROUP BY l.tenant
        ON CONFLICT (tenant) DO UPDATE
        SET version = excluded.version, through_seq = greatest(t.through_seq, excluded.through_seq);
    UPDATE tidewire.retention_rules AS r
       SET removed = r.removed + l.events, removed_at = clock_timestamp()
      FROM jsonb_to_recordset(_lost) AS l(tenant text, pattern text, events bigint)
     WHERE r.tenant = l.tenant AND r.pattern = l.pattern AND l.events > 0;
    -- As late as can be: readers of the log wait for it.
    _wanted := _chunk.name;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', _chunk.name);
    EXECUTE format('SELECT %I.drop_chunks(%L::regclass, older_than => %L::timestamptz, newer_than => %L::timestamptz)',
                   _schema, 'tidewire.events', _chunk.range_end, _chunk.range_start);
    -- Last: an open writer holds readers back, so it waits for nobody.
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    SELECT l.tenant, tidewire.new_id(), 'tidewire.audit.retention.applied', session_user,
           jsonb_build_object('pattern', l.pattern, 'days', r.days, 'events', l.events)
      FROM jsonb_to_recordset(_lost) AS l(tenant text, pattern text, events bigint)
      JOIN tidewire.retention_rules AS r ON r.tenant = l.tenant AND r.pattern = l.pattern
     WHERE l.events > 0;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    IF _holders IS NOT NULL THEN
        RAISE EXCEPTION 'the oldest chunk is not removed: that is held up by %, and the advisory lock is not theirs', _holders
            USING ERRCODE = '55P03';
    END IF;
    RAISE EXCEPTION 'the oldest chunk is not removed: % is in use by %', _wanted, tidewire.users_of(_wanted) USING ERRCODE = '55P03';
END
$fn$;
COMMENT ON FUNCTION tidewire.retain_by_rules() IS 'Removes the oldest chunk if tenants'' rules keep none of its events; says whether it did.';
