--
-- PostgreSQL database dump
--

--
-- Name: tidewire; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA tidewire;

--
-- Name: priority; Type: TYPE; Schema: tidewire; Owner: -
--

CREATE TYPE tidewire.priority AS ENUM (
    'critical',
    'high',
    'normal',
    'low'
);

--
-- Name: announce_credential_change(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.announce_credential_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_TABLE_NAME = 'api_keys' THEN
        IF TG_OP = 'DELETE' AND (OLD.revoked_at IS NOT NULL OR OLD.expires_at <= clock_timestamp() - interval '1 hour') THEN
            RETURN NULL;
        END IF;
        INSERT INTO tidewire.credential_changes (changed_in, tenant, kind, value)
        SELECT pg_current_xact_id(), k.tenant, 'key', k.key_id
          FROM (SELECT OLD.tenant, OLD.key_id UNION SELECT NEW.tenant, NEW.key_id) AS k(tenant, key_id)
         WHERE k.key_id IS NOT NULL;
    ELSE
        IF TG_OP = 'DELETE' AND OLD.until <= clock_timestamp() - interval '1 hour' THEN
            RETURN NULL;
        END IF;
        INSERT INTO tidewire.credential_changes (changed_in, tenant, kind, value)
        SELECT pg_current_xact_id(), r.tenant, r.claim, r.value
          FROM (SELECT OLD.tenant, OLD.claim, OLD.value UNION SELECT NEW.tenant, NEW.claim, NEW.value) AS r(tenant, claim, value)
         WHERE r.value IS NOT NULL;
    END IF;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION announce_credential_change(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.announce_credential_change() IS 'Trigger: tells the servers which credential has changed.';

--
-- Name: announce_setting_change(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.announce_setting_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO tidewire.setting_changes AS c (tenant, change, changed_in)
    SELECT t.tenant, gen_random_uuid(), pg_current_xact_id()
      FROM (SELECT OLD.tenant UNION SELECT NEW.tenant) AS t(tenant)
     WHERE t.tenant IS NOT NULL
        ON CONFLICT (tenant) DO UPDATE SET change = excluded.change, changed_in = excluded.changed_in;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION announce_setting_change(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.announce_setting_change() IS 'Trigger: tells the servers that a tenant''s settings have changed.';

--
-- Name: append(text, jsonb, text, text, text, text, timestamp with time zone, text, jsonb, text, bytea, text, text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.append(topic text, data jsonb DEFAULT NULL::jsonb, subject text DEFAULT NULL::text, id text DEFAULT NULL::text, source text DEFAULT NULL::text, priority text DEFAULT NULL::text, occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, region text DEFAULT NULL::text, gdpr jsonb DEFAULT NULL::jsonb, trace text DEFAULT NULL::text, bytes bytea DEFAULT NULL::bytea, content_type text DEFAULT NULL::text, expect text DEFAULT NULL::text, tenant text DEFAULT NULL::text) RETURNS TABLE(event_id text, seq bigint, cursor text, duplicate boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    _tenant   text := tidewire.writing_tenant(append.tenant);
    _id       text := coalesce(append.id, tidewire.new_id());
    _expected bigint := CASE WHEN append.expect = 'none' THEN 0 ELSE tidewire.cursor_seq(append.expect) END;
    _result   record;
    _withheld boolean;
    _priority text := coalesce(append.priority, tidewire.default_priority(_tenant, append.topic));
BEGIN
    IF tidewire.is_reserved(append.topic) AND NOT tidewire.may_act_for_log() THEN
        RAISE EXCEPTION 'topics under tidewire. are written by the log alone' USING ERRCODE = 'TW403';
    END IF;
    IF append.topic = 'system' OR starts_with(append.topic, 'system.') THEN
        RAISE EXCEPTION 'topics under system. tell of the server itself, and are not stored' USING ERRCODE = 'TW403';
    END IF;
    IF append.expect IS NOT NULL AND append.subject IS NULL THEN
        RAISE EXCEPTION 'expect needs a subject' USING ERRCODE = 'TW422';
    END IF;
    _withheld := NOT tidewire.is_reserved(append.topic)
        AND tidewire.check_admission(_tenant, append.topic, append.gdpr);
    FOR _attempt IN 1..10 LOOP
        BEGIN
            SELECT m.seq, m.recorded_at, m.outcome INTO _result FROM tidewire.append_many(
                ARRAY[_tenant], ARRAY[_id], ARRAY[append.topic], ARRAY[append.subject],
                ARRAY[coalesce(append.source, session_user::text)], ARRAY[_priority], ARRAY[append.occurred_at],
                ARRAY[append.region], ARRAY[append.gdpr::text], ARRAY[append.trace],
                ARRAY[CASE WHEN NOT _withheld THEN append.data::text END], ARRAY[CASE WHEN NOT _withheld THEN append.bytes END],
                ARRAY[CASE WHEN NOT _withheld THEN append.content_type END], ARRAY[1], ARRAY[_expected]) AS m;
            EXIT;
        EXCEPTION WHEN unique_violation OR serialization_failure THEN
            -- Another transaction has just stored this id, or an event of the subject: the next attempt finds it. Under
            -- REPEATABLE READ it never will.
            IF _attempt = 10 OR current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    CASE _result.outcome
        WHEN 'id_conflict' THEN
            RAISE EXCEPTION 'id % was used with other content', quote_literal(_id) USING ERRCODE = 'TW422';
        WHEN 'expect_conflict' THEN
            RAISE EXCEPTION 'the subject''s newest event is another'
                USING ERRCODE = 'TW409', DETAIL = coalesce(tidewire.cursor(_result.seq, _result.recorded_at), 'none');
        ELSE NULL;
    END CASE;
    RETURN QUERY SELECT _id, _result.seq, tidewire.cursor(_result.seq, _result.recorded_at), _result.outcome = 'duplicate';
END
$$;

--
-- Name: FUNCTION append(topic text, data jsonb, subject text, id text, source text, priority text, occurred_at timestamp with time zone, region text, gdpr jsonb, trace text, bytes bytea, content_type text, expect text, tenant text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.append(topic text, data jsonb, subject text, id text, source text, priority text, occurred_at timestamp with time zone, region text, gdpr jsonb, trace text, bytes bytea, content_type text, expect text, tenant text) IS 'Appends one event: SELECT * FROM tidewire.append(''deal.stage.updated'', ''{"stage":"won"}'', subject => ''deal-7'').';

--
-- Name: append_many(text[], text[], text[], text[], text[], text[], timestamp with time zone[], text[], text[], text[], text[], bytea[], text[], integer[], bigint[]); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.append_many(tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[], occurred_ats timestamp with time zone[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[], content_types text[], group_nos integer[], expected_seqs bigint[]) RETURNS TABLE(seq bigint, recorded_at timestamp with time zone, outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    _count    integer := cardinality(ids);
    _outcomes text[] := array_fill('stored'::text, ARRAY[_count]);
    _seqs     bigint[] := array_fill(NULL::bigint, ARRAY[_count]);
    _times    timestamptz[] := array_fill(NULL::timestamptz, ARRAY[_count]);
    _failed   integer[] := '{}';
    _known    record;
    _newest   record;
    _new_seqs  bigint[];
    _new_times timestamptz[];
    _next     integer := 1;
    _last     bigint;
BEGIN
    -- Before the ids are looked up: whoever waited here for its own retry finds it as a duplicate, and does not conflict
    -- with itself. In order, so that two batches never wait for each other. Everybody sees in pg_locks which locks are held:
    -- the key is hashed with what only the log knows, so that nobody can try names of other tenants' subjects.
    PERFORM pg_advisory_xact_lock(1953064035, s.key)
       FROM (SELECT DISTINCT ('x' || left(encode(sha256(uuid_send(l.log_id)
                                 || convert_to(i.tenant || '/' || i.subject, 'UTF8')), 'hex'), 8))::bit(32)::integer AS key
               FROM unnest(tenants, subjects, expected_seqs) AS i(tenant, subject, expected)
              CROSS JOIN tidewire.log AS l
              WHERE i.expected IS NOT NULL ORDER BY 1) AS s;

    FOR _known IN
        SELECT i.ord, k.seq, k.recorded_at,
               e.seq IS NULL   -- retention has removed the event: its id alone is still known
               OR (e.tenant = i.tenant AND e.id = i.id AND e.topic = i.topic
                   AND e.subject IS NOT DISTINCT FROM i.subject
                   AND (e.source IS NULL   -- an erasure may have taken it
                        OR e.source IS NOT DISTINCT FROM i.source)
                   AND e.occurred_at IS NOT DISTINCT FROM i.occurred_at
                   AND e.data IS NOT DISTINCT FROM i.data::jsonb
                   AND e.bytes IS NOT DISTINCT FROM i.bytes
                   AND e.content_type IS NOT DISTINCT FROM i.content_type) AS is_same
          FROM unnest(tenants, ids, topics, subjects, sources, occurred_ats, datas, bytess, content_types)
               WITH ORDINALITY AS i(tenant, id, topic, subject, source, occurred_at, data, bytes, content_type, ord)
          JOIN tidewire.idempotency_keys AS k ON k.key = tidewire.idempotency_key(i.tenant, i.id)
          LEFT JOIN tidewire.events AS e ON e.seq = k.seq AND e.recorded_at = k.recorded_at
    LOOP
        _outcomes[_known.ord] := CASE WHEN _known.is_same THEN 'duplicate' ELSE 'id_conflict' END;
        _seqs[_known.ord] := _known.seq;
        _times[_known.ord] := _known.recorded_at;
        IF NOT _known.is_same THEN
            _failed := _failed || group_nos[_known.ord];
        END IF;
    END LOOP;

    -- What it said is gone: as with retention, the id alone decides.
    FOR _known IN
        SELECT i.ord, x.seq, x.recorded_at FROM unnest(tenants, ids) WITH ORDINALITY AS i(tenant, id, ord)
          JOIN tidewire.erased_ids AS x ON x.key = tidewire.erased_key(i.tenant, i.id)
    LOOP
        _outcomes[_known.ord] := 'duplicate';
        _seqs[_known.ord] := _known.seq;
        _times[_known.ord] := _known.recorded_at;
    END LOOP;

    FOR _i IN 1.._count LOOP
        CONTINUE WHEN expected_seqs[_i] IS NULL OR _outcomes[_i] <> 'stored';
        _newest := NULL;
        SELECT e.seq, e.recorded_at INTO _newest FROM tidewire.events AS e
         WHERE e.tenant = tenants[_i] AND e.subject = subjects[_i] ORDER BY e.seq DESC LIMIT 1;
        IF coalesce(_newest.seq, 0) <> expected_seqs[_i] THEN
            _outcomes[_i] := 'expect_conflict';
            _seqs[_i] := _newest.seq;
            _times[_i] := _newest.recorded_at;
            _failed := _failed || group_nos[_i];
        END IF;
    END LOOP;

    WITH written AS (
        INSERT INTO tidewire.events AS e (tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace,
                                          data, bytes, content_type)
        SELECT i.tenant, i.id, i.topic, i.subject, i.source, i.priority::tidewire.priority, i.occurred_at, i.region,
               i.gdpr::jsonb, i.trace, i.data::jsonb, i.bytes, i.content_type
          FROM unnest(tenants, ids, topics, subjects, sources, priorities, occurred_ats, regions, gdprs, traces, datas,
                      bytess, content_types, group_nos, _outcomes)
               WITH ORDINALITY AS i(tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace, data,
                                    bytes, content_type, group_no, outcome, ord)
         WHERE i.outcome = 'stored' AND i.group_no <> ALL (_failed)
         ORDER BY i.ord
        RETURNING e.seq, e.recorded_at
    )
    SELECT array_agg(w.seq ORDER BY w.seq), array_agg(w.recorded_at ORDER BY w.seq)
      INTO _new_seqs, _new_times FROM written AS w;

    FOR _i IN 1.._count LOOP
        IF _outcomes[_i] = 'stored' AND group_nos[_i] <> ALL (_failed) THEN
            _seqs[_i] := _new_seqs[_next];
            _times[_i] := _new_times[_next];
            _next := _next + 1;
        ELSIF _outcomes[_i] IN ('stored', 'duplicate') AND group_nos[_i] = ANY (_failed) THEN
            _outcomes[_i] := 'skipped';
        END IF;
    END LOOP;

    SELECT max(i.seq) INTO _last FROM unnest(_seqs, _outcomes, expected_seqs) AS i(seq, outcome, expected)
     WHERE i.outcome = 'stored' AND i.expected IS NOT NULL;
    IF _last IS NOT NULL THEN
        FOR _i IN 1..50 LOOP
            EXIT WHEN NOT tidewire.has_short_writer(_last);
            PERFORM pg_sleep(0.002);
        END LOOP;
        PERFORM FROM unnest(tenants, subjects, _seqs, _outcomes, expected_seqs) AS i(tenant, subject, seq, outcome, expected)
           JOIN tidewire.events AS e ON e.tenant = i.tenant AND e.subject = i.subject
                AND e.seq > i.expected AND e.seq < i.seq AND e.seq <> ALL (_new_seqs)
          WHERE i.outcome = 'stored' AND i.expected IS NOT NULL;
        IF FOUND THEN
            RAISE EXCEPTION 'another event of the subject came first' USING ERRCODE = '40001';
        END IF;
    END IF;
    RETURN QUERY SELECT r.seq, r.recorded_at, r.outcome
                   FROM unnest(_seqs, _times, _outcomes) WITH ORDINALITY AS r(seq, recorded_at, outcome, ord)
                  ORDER BY r.ord;
END
$$;

--
-- Name: FUNCTION append_many(tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[], occurred_ats timestamp with time zone[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[], content_types text[], group_nos integer[], expected_seqs bigint[]); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.append_many(tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[], occurred_ats timestamp with time zone[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[], content_types text[], group_nos integer[], expected_seqs bigint[]) IS 'Appends a batch, group by group all or nothing; for the server. Applications call tidewire.append().';

--
-- Name: apply_retention(integer, timestamp with time zone); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.apply_retention(row_limit integer DEFAULT 5000, round_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(removed bigint, is_complete boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $$
#variable_conflict use_column
DECLARE
    _bytes_max CONSTANT bigint := 32 * 1024 * 1024;
    _watermark bigint;
    _began     timestamptz := clock_timestamp();
    _round     timestamptz := coalesce(apply_retention.round_at, _began);
    _rested    timestamptz := CASE WHEN apply_retention.round_at IS NULL THEN 'infinity' ELSE _began - interval '6 hours' END;
    _is_over   boolean := false;
    _tenant    text;
    _turn_at   timestamptz;
    _holders   text;
    _undue     jsonb;
    _rule      tidewire.retention_rules;
    _cutoff    timestamptz;
    _found     record;
    _room      bigint;
    _rows      bigint;
    _room_bytes bigint;
    _bytes     bigint := 0;
    _is_ours   boolean;
    _is_held   boolean := false;
    _is_left   boolean := false;
    _failure   text;
    _is_late   boolean := false;
    _constraint text;
    _table     text;
    _looked    bigint := 0;
    _removed   bigint := 0;
    _emptied   bigint;
    _applied   jsonb := '[]';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'retention needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    IF NOT EXISTS (SELECT FROM tidewire.retention_rules) THEN
        RETURN QUERY SELECT 0::bigint, true;
        RETURN;
    END IF;
    BEGIN
        PERFORM pg_advisory_xact_lock(1953064034, 1);
    EXCEPTION WHEN lock_not_available THEN
        SELECT string_agg(u.holder, ', ') INTO _holders FROM tidewire.undue_locks(1953064034, 1) AS u;
        IF _holders IS NOT NULL THEN
            RAISE WARNING 'retention of all tenants is held up by %: its advisory lock is not theirs', _holders;
            RETURN QUERY SELECT 0::bigint, NULL::boolean;
            RETURN;
        END IF;
        RAISE NOTICE 'another session applies tenants'' rules: they are left to it';
        RETURN QUERY SELECT 0::bigint, true;
        RETURN;
    END;
    -- What is written into it below, before the version of erasures.
    LOCK TABLE tidewire.retention_rules IN ROW EXCLUSIVE MODE;
    -- Before the events are read: whoever is not seen here takes a place above it.
    SELECT w.watermark INTO _watermark FROM tidewire.watermark() AS w;
    <<turns>>
    FOR _tenant, _turn_at IN
        SELECT r.tenant, t.looked_at FROM tidewire.retention_rules AS r LEFT JOIN tidewire.retention_turns AS t ON t.tenant = r.tenant
         WHERE r.through_at IS NULL
            OR r.through_at < _round AND (r.through_at < _rested OR r.young_at < _began - r.days * interval '24 hours')
         GROUP BY r.tenant, t.looked_at ORDER BY t.looked_at NULLS FIRST, r.tenant
    LOOP
        -- Before the tenant's rules are read, until the end: as whoever changes them does (tidewire.record_retention_rule()).
        _holders := NULL;
        IF NOT pg_try_advisory_xact_lock(1953064038, hashtext(_tenant)) THEN
            -- Once for all tenants: who has one of these numbers may have many.
            _undue := coalesce(_undue, (
                SELECT coalesce(jsonb_object_agg(u.key, u.holder), '{}') FROM tidewire.undue_locks(1953064038, NULL) AS u));
            _holders := _undue ->> hashtext(_tenant)::text;
            IF _holders IS NULL THEN
                RAISE NOTICE 'rules of tenant % are being changed: they are left to a later call', _tenant;
                CONTINUE;
            END IF;
            -- Once a round: it costs the others no call.
            CONTINUE WHEN _turn_at >= _round;
            RAISE WARNING 'retention of tenant % is held up by %: its advisory lock is not theirs', _tenant, _holders;
            _is_held := true;
        END IF;
        INSERT INTO tidewire.retention_turns AS t (tenant, looked_at) VALUES (_tenant, clock_timestamp())
            ON CONFLICT (tenant) DO UPDATE SET looked_at = excluded.looked_at;
        CONTINUE WHEN _holders IS NOT NULL;
        FOR _rule IN
            SELECT r.* FROM tidewire.retention_rules AS r
             WHERE r.tenant = _tenant AND (r.through_at IS NULL
                OR r.through_at < _round AND (r.through_at < _rested OR r.young_at < _began - r.days * interval '24 hours'))
             ORDER BY r.looked_at, r.pattern FOR NO KEY UPDATE SKIP LOCKED
        LOOP
            _cutoff := clock_timestamp() - _rule.days * interval '24 hours';
            _room := apply_retention.row_limit - _looked;
            _rows := least(_room, _rule.batch_rows);
            _room_bytes := _bytes_max - _bytes;
            _emptied := 0;
            _is_ours := true;
            BEGIN
                SELECT f.* INTO _found FROM tidewire.find_due(_rule, _watermark, _cutoff, _rows, _room_bytes) AS f;
                IF _found.seqs IS NOT NULL THEN
                    _is_ours := false;
                    UPDATE tidewire.erasure_changes AS c SET version = c.version + 1;
                    _is_ours := true;
                    _emptied := tidewire.redact(_rule.tenant, _found.seqs, _found.earliest, _found.latest);
                END IF;
            EXCEPTION
                WHEN lock_not_available THEN
                    _is_held := true;
                    IF NOT _is_ours THEN
                        RAISE WARNING 'retention waits for an erasure by %', tidewire.users_of('tidewire.erasure_changes');
                        EXIT turns;
                    END IF;
                    RAISE WARNING 'retention of tenant % by its rule % has to wait for others: %', _rule.tenant, _rule.pattern, SQLERRM;
                    UPDATE tidewire.retention_rules AS r SET looked_at = clock_timestamp()
                     WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
                    EXIT turns WHEN clock_timestamp() > _began + interval '1 second';
                    CONTINUE turns;
                WHEN query_canceled OR OTHERS THEN
                    -- As src/pg/advice.rs: what may quote a row does not go into the database's log.
                    _is_late := SQLSTATE = '57014';
                    GET STACKED DIAGNOSTICS _constraint = CONSTRAINT_NAME, _table = TABLE_NAME;
                    _failure := concat_ws(', ', 'SQLSTATE ' || SQLSTATE
                        || CASE WHEN SQLSTATE ~ '^(08|25|28|3D|42|53|54|55|57|58|TW400|TW503)' THEN ': ' || SQLERRM ELSE '' END,
                        'constraint ' || nullif(_constraint, ''), 'table ' || nullif(_table, ''));
            END;
            IF _failure IS NOT NULL THEN
                RAISE WARNING 'retention of tenant % by its rule % has failed: %', _rule.tenant, _rule.pattern, _failure;
                UPDATE tidewire.retention_rules AS r
                   SET looked_at = clock_timestamp(), batch_rows = CASE WHEN _is_late THEN greatest(_rows / 2, 1) ELSE r.batch_rows END
                 WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
                EXIT turns;
            END IF;
            UPDATE tidewire.retention_rules AS r
               SET applied_seq = coalesce(_found.looked_to, r.applied_seq), removed = r.removed + _emptied,
                   removed_at = CASE WHEN _emptied > 0 THEN clock_timestamp() ELSE r.removed_at END,
                   looked_at = clock_timestamp(), young_at = _found.young_at,
                   batch_rows = CASE WHEN r.batch_rows < apply_retention.row_limit / 2 THEN r.batch_rows * 2 END,
                   through_at = CASE WHEN _found.looked < _rows AND _found.bytes < _room_bytes THEN clock_timestamp() END
             WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
            _removed := _removed + _emptied;
            IF _emptied > 0 THEN
                _applied := _applied || jsonb_build_object('tenant', _rule.tenant,
                    'said', jsonb_build_object('pattern', _rule.pattern, 'days', _rule.days, 'events', _emptied));
            END IF;
            _looked := _looked + _found.looked;
            _bytes := _bytes + _found.bytes;
            _is_left := _is_left OR (_rows < _room AND _found.looked >= _rows);
            -- After a rule, not before the first: each call comes further.
            _is_over := _looked >= apply_retention.row_limit OR _bytes >= _bytes_max
                OR ((apply_retention.round_at IS NOT NULL OR _removed > 0) AND clock_timestamp() > _began + interval '1 second');
            EXIT turns WHEN _is_over;
        END LOOP;
    END LOOP;
    -- Last: an open writer holds readers back, so it waits for nobody.
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    SELECT a.one ->> 'tenant', tidewire.new_id(), 'tidewire.audit.retention.applied', session_user, a.one -> 'said'
      FROM jsonb_array_elements(_applied) AS a(one);
    RETURN QUERY SELECT _removed, CASE WHEN _failure IS NULL AND NOT _is_held THEN NOT (_is_over OR _is_left) END;
END
$$;

--
-- Name: FUNCTION apply_retention(row_limit integer, round_at timestamp with time zone); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.apply_retention(row_limit integer, round_at timestamp with time zone) IS 'Empties a batch of events that tenants'' rules keep no longer; call it until is_complete.';

--
-- Name: begin_epoch(text, boolean); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.begin_epoch(reason text DEFAULT 'asked for'::text, force boolean DEFAULT true) RETURNS smallint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _system   bigint := (SELECT s.system_identifier FROM pg_control_system() AS s);
    -- The first eight digits of a WAL file's name are its timeline; the control file lags until the next checkpoint.
    _timeline integer := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
    _database oid := (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database());
    _events   oid := 'tidewire.events'::regclass;
    _current  tidewire.epochs;
    _newest   bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1953064034, 2);
    SELECT e.* INTO _current FROM tidewire.epochs AS e ORDER BY e.epoch DESC LIMIT 1;
    IF _current.epoch IS NOT NULL AND NOT begin_epoch.force
       AND _current.system_identifier = _system AND _current.timeline = _timeline
       AND _current.database_oid = _database AND _current.events_oid = _events THEN
        RETURN _current.epoch;
    END IF;
    SELECT coalesce(max(e.seq), 0) INTO _newest FROM tidewire.events AS e;
    IF begin_epoch.force THEN
        PERFORM setval('tidewire.events_clock', (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    END IF;
    INSERT INTO tidewire.epochs AS e (epoch, after_seq, system_identifier, timeline, database_oid, events_oid, reason)
    VALUES (coalesce(_current.epoch, 0) + 1, _newest, _system, _timeline, _database, _events,
            CASE WHEN _current.epoch IS NULL THEN 'created'
                 WHEN begin_epoch.force THEN begin_epoch.reason
                 WHEN _current.system_identifier <> _system THEN 'another cluster: restored or upgraded'
                 WHEN _current.timeline <> _timeline THEN 'another timeline: recovered or failed over'
                 ELSE 'another database or table: restored or copied' END);
    RETURN coalesce(_current.epoch, 0) + 1;
END
$$;

--
-- Name: FUNCTION begin_epoch(reason text, force boolean); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.begin_epoch(reason text, force boolean) IS 'Begins a new life of the log: cursors beyond its newest event become unknown.';

--
-- Name: check_admission(text, text, jsonb); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.check_admission(tenant text, topic text, gdpr jsonb) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _mode     text;
    _consent  text;
    _topics   text[];
    _declared record;
BEGIN
    SELECT s.topic_mode, s.consent, s.consent_topics INTO _mode, _consent, _topics
      FROM tidewire.tenant_settings AS s WHERE s.tenant = check_admission.tenant;
    SELECT count(*) AS patterns, count(*) FILTER (WHERE d.schema IS NOT NULL AND d.in_sql = 'refuse') AS schemas INTO _declared
      FROM tidewire.declared_topics AS d
     WHERE d.tenant = check_admission.tenant AND tidewire.topic_matches(check_admission.topic, d.pattern);
    IF _mode = 'declared' AND _declared.patterns = 0 THEN
        RAISE EXCEPTION 'the topic % is not declared', quote_literal(check_admission.topic)
            USING ERRCODE = 'TW422', HINT = 'An administrator of the tenant declares it: PUT /v1/topics/{pattern}.';
    END IF;
    IF _declared.schemas > 0 THEN
        RAISE EXCEPTION 'the topic % has a schema, which only the server can check', quote_literal(check_admission.topic)
            USING ERRCODE = 'TW422', HINT = 'Write it over HTTP, or declare it with "in_sql": "unchecked".';
    END IF;
    IF coalesce(_consent, 'optional') = 'optional'
       OR check_admission.gdpr -> 'consent' IS NOT DISTINCT FROM 'true'::jsonb
       OR NOT EXISTS (SELECT FROM unnest(_topics) AS t(pattern) WHERE tidewire.topic_matches(check_admission.topic, t.pattern)) THEN
        RETURN false;
    END IF;
    IF _consent = 'require' THEN
        RAISE EXCEPTION 'the tenant takes no events without consent' USING ERRCODE = 'TW422', COLUMN = 'gdpr',
            HINT = 'Say so in the event: gdpr => ''{"consent": true}''.';
    END IF;
    RETURN true;
END
$$;

--
-- Name: FUNCTION check_admission(tenant text, topic text, gdpr jsonb); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.check_admission(tenant text, topic text, gdpr jsonb) IS 'What a tenant''s settings have to say against an event; whether its data is withheld.';

--
-- Name: claim_floor(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.claim_floor() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    _newest bigint := pg_sequence_last_value('tidewire.events_seq'::regclass);
    _held   text := current_setting('tidewire.floor', true);
    _floor  bigint := _newest;
    _clock  bigint := pg_sequence_last_value('tidewire.events_clock'::regclass);
    _now    bigint := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
    _done   text;
BEGIN
    -- Assignments, not PERFORM: they are evaluated without a query.
    IF _held ~ '^[0-9]{1,18}$' THEN
        _floor := greatest(least(_held::bigint, _newest), _newest - 2147483648);
    ELSE
        _done := set_config('tidewire.floor', _floor::text, true);
    END IF;
    -- The low 32 bits: tidewire.watermark() restores the rest from the sequence's value.
    _done := pg_advisory_xact_lock_shared(1953064037 /* tidewire.floor_class() */, (_floor & 4294967295)::bit(32)::integer);

    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;

    IF _now > _clock + 60000 THEN
        PERFORM setval('tidewire.events_clock', _now);
    ELSIF _now < _clock - 60000 AND _now < _clock
            - (SELECT extract(epoch FROM l.disorder_max) * 500 FROM tidewire.log AS l) THEN
        RAISE EXCEPTION 'the database''s clock stands % behind the newest event', make_interval(secs => (_clock - _now) / 1000)
            USING ERRCODE = 'TW503',
                  HINT = 'Set the clock right. If the newest events were written by a clock that ran ahead, '
                         'call tidewire.begin_epoch() to start a new life of the log.';
    END IF;
    RETURN NULL;
END
$_$;

--
-- Name: FUNCTION claim_floor(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.claim_floor() IS 'Trigger: announces a writer by a shared advisory lock that carries its floor, until its transaction ends.';

--
-- Name: claim_watches(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.claim_watches() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1953064041, 0);
    PERFORM nextval('tidewire.watch_changes');
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION claim_watches(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.claim_watches() IS 'Trigger: one change of watches at a time.';

--
-- Name: close_chunks(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.close_chunks() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _open   record;
    _closed integer := 0;
BEGIN
    FOR _open IN
        SELECT DISTINCT c.oid::regclass AS chunk,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
          FROM pg_inherits AS i
          JOIN pg_class AS c ON c.oid = i.inhrelid
         CROSS JOIN LATERAL (
               SELECT x.grantee FROM aclexplode(c.relacl) AS x
               UNION
               SELECT x.grantee FROM pg_attribute AS t, aclexplode(t.attacl) AS x WHERE t.attrelid = c.oid) AS a
         WHERE i.inhparent = 'tidewire.events'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', _open.chunk, _open.grantee);
        _closed := _closed + 1;
    END LOOP;
    RETURN _closed;
END
$$;

--
-- Name: FUNCTION close_chunks(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.close_chunks() IS 'Takes from everybody but the owner the grants that chunks have got from the log.';

--
-- Name: create_tenant_role(text, text, boolean, boolean, text, integer); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.create_tenant_role(role text, tenant text, may_write boolean DEFAULT false, is_admin boolean DEFAULT false, verifier text DEFAULT NULL::text, connections integer DEFAULT 10) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    _version integer := current_setting('server_version_num')::integer / 10000;
    _group   text;
    _setting text;
BEGIN
    IF create_tenant_role.verifier !~ '^SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$' THEN
        RAISE EXCEPTION 'verifier is not a SCRAM-SHA-256 verifier'
            USING ERRCODE = 'TW400', HINT = 'Never send a password itself: use tidewire role create, or psql''s \password.';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT %s PASSWORD %L', create_tenant_role.role,
                   create_tenant_role.connections, create_tenant_role.verifier);
    FOREACH _group IN ARRAY CASE WHEN create_tenant_role.may_write THEN ARRAY['tidewire_analyst', 'tidewire_writer']
                                 ELSE ARRAY['tidewire_analyst'] END LOOP
        -- Where it can be said: has what the group may, but cannot become the group, whose objects all tenants would share.
        EXECUTE format('GRANT %I TO %I%s', _group, create_tenant_role.role,
                       CASE WHEN _version >= 16 THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END);
    END LOOP;
    FOREACH _setting IN ARRAY ARRAY[
        'statement_timeout = ''5min''', 'lock_timeout = ''10s''',
        -- Whoever has written and does nothing keeps everybody from reading on.
        'idle_in_transaction_session_timeout = ' || CASE WHEN create_tenant_role.may_write THEN '''10s''' ELSE '''1min''' END,
        'default_transaction_read_only = ' || CASE WHEN create_tenant_role.may_write THEN 'off' ELSE 'on' END] LOOP
        EXECUTE format('ALTER ROLE %I SET %s', create_tenant_role.role, _setting);
    END LOOP;
    BEGIN
        EXECUTE format('ALTER ROLE %I SET temp_file_limit = ''1GB''', create_tenant_role.role);
    EXCEPTION WHEN insufficient_privilege THEN
        NULL; -- a superuser's
    END;
    INSERT INTO tidewire.tenant_roles AS t (role, tenant, is_admin)
    VALUES (create_tenant_role.role, create_tenant_role.tenant, create_tenant_role.is_admin);
END
$_$;

--
-- Name: FUNCTION create_tenant_role(role text, tenant text, may_write boolean, is_admin boolean, verifier text, connections integer); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.create_tenant_role(role text, tenant text, may_write boolean, is_admin boolean, verifier text, connections integer) IS 'Creates a login role that sees one tenant''s events: SELECT tidewire.create_tenant_role(''acme_bi'', ''acme'').';

--
-- Name: tenant_roles; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.tenant_roles (
    role name NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    is_admin boolean DEFAULT false NOT NULL,
    CONSTRAINT tenant_roles_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE tenant_roles; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.tenant_roles IS 'Which tenant a database role belongs to; tidewire.append() writes for that tenant alone.';

--
-- Name: current_tenant(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.current_tenant() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT r.tenant FROM tidewire.tenant_roles r WHERE (r.role = SESSION_USER));

--
-- Name: FUNCTION current_tenant(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.current_tenant() IS 'The tenant of the role that is logged in.';

--
-- Name: cursor(bigint, timestamp with time zone); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.cursor(seq bigint, recorded_at timestamp with time zone) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _place bytea := substring(int4send((SELECT max(e.epoch) FROM tidewire.epochs AS e)::integer) FROM 3)
                 || int8send(cursor.seq)
                 || substring(int8send(floor(extract(epoch FROM cursor.recorded_at) * 1000)::bigint) FROM 3);
    _bits  bit(160);
BEGIN
    _place := _place || substring(sha256((SELECT uuid_send(l.log_id) FROM tidewire.log AS l) || _place) FROM 1 FOR 4);
    _bits := ('x' || encode(_place, 'hex'))::bit(160);
    RETURN (SELECT string_agg(substr('0123456789abcdefghijklmnopqrstuv',
                                     substring(_bits FROM 5 * g.i + 1 FOR 5)::integer + 1, 1), '' ORDER BY g.i)
              FROM generate_series(0, 31) AS g(i));
END
$$;

--
-- Name: FUNCTION cursor(seq bigint, recorded_at timestamp with time zone); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.cursor(seq bigint, recorded_at timestamp with time zone) IS 'The cursor text of an event: SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events.';

--
-- Name: cursor_seq(text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.cursor_seq(cursor text) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    _bits  bit varying := ''::bit varying;
    _bytes bytea;
    _seq   bigint;
    _epoch integer;
BEGIN
    IF cursor_seq.cursor !~ '^[0-9a-v]{32}$' THEN
        RAISE EXCEPTION 'not a cursor' USING ERRCODE = 'TW400';
    END IF;
    FOR _i IN 1..32 LOOP
        _bits := _bits || (strpos('0123456789abcdefghijklmnopqrstuv', substr(cursor_seq.cursor, _i, 1)) - 1)::bit(5);
    END LOOP;
    _bytes := ''::bytea;
    FOR _i IN 0..19 LOOP
        _bytes := _bytes || substring(int4send(substring(_bits FROM 8 * _i + 1 FOR 8)::bit(8)::integer) FROM 4);
    END LOOP;
    _epoch := substring(_bits FROM 1 FOR 16)::bit(16)::integer;
    _seq := substring(_bits FROM 17 FOR 64)::bit(64)::bigint;
    IF substring(sha256((SELECT uuid_send(l.log_id) FROM tidewire.log AS l) || substring(_bytes FROM 1 FOR 16)) FROM 1 FOR 4)
           <> substring(_bytes FROM 17 FOR 4)
       -- A life that came after the cursor's own shares its history only up to where it began.
       OR _seq > least((SELECT min(e.after_seq) FROM tidewire.epochs AS e WHERE e.epoch > _epoch),
                       pg_sequence_last_value('tidewire.events_seq'::regclass)) THEN
        RAISE EXCEPTION 'a cursor this log never issued, or one that lies ahead of it' USING ERRCODE = 'TW409';
    END IF;
    RETURN _seq;
END
$_$;

--
-- Name: FUNCTION cursor_seq(cursor text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.cursor_seq(cursor text) IS 'The seq that a cursor names: WHERE seq > tidewire.cursor_seq(''…'').';

--
-- Name: default_priority(text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.default_priority(tenant text, topic text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(
        (SELECT d.priority::text FROM tidewire.declared_topics AS d
          WHERE d.tenant = default_priority.tenant AND d.priority IS NOT NULL
            AND tidewire.topic_matches(default_priority.topic, d.pattern)
          ORDER BY d.specificity DESC LIMIT 1), 'normal');
$$;

--
-- Name: FUNCTION default_priority(tenant text, topic text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.default_priority(tenant text, topic text) IS 'The priority of an event that names none.';

--
-- Name: drop_tenant_role(text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.drop_tenant_role(role text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _group  text;
    _others text;
    _is_gone boolean := true;
BEGIN
    PERFORM FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role % belongs to no tenant', quote_ident(drop_tenant_role.role) USING ERRCODE = 'TW404';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = drop_tenant_role.role) THEN
        DELETE FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
        RETURN true;
    END IF;
    EXECUTE format('ALTER ROLE %I NOLOGIN', drop_tenant_role.role);
    FOR _group IN
        SELECT g.rolname FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
          JOIN pg_roles AS r ON r.oid = m.member
         WHERE r.rolname = drop_tenant_role.role AND g.rolname IN ('tidewire_analyst', 'tidewire_writer') LOOP
        EXECUTE format('REVOKE %I FROM %I', _group, drop_tenant_role.role);
    END LOOP;
    BEGIN
        PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.usename = drop_tenant_role.role;
    EXCEPTION WHEN insufficient_privilege THEN
        -- They see nothing any more, but for a transaction that began before and keeps its snapshot.
        RAISE WARNING 'sessions of role % go on, without events: ending them needs pg_signal_backend',
            quote_ident(drop_tenant_role.role);
    END;
    BEGIN
        EXECUTE format('DROP ROLE %I', drop_tenant_role.role);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        GET STACKED DIAGNOSTICS _others = PG_EXCEPTION_DETAIL;
        RAISE WARNING 'role % stays, without login and tenant, since objects depend on it', quote_ident(drop_tenant_role.role)
            USING DETAIL = _others;
        _is_gone := false;
    END;
    -- Last, since the log is told of it: an open writer holds readers back, so it waits for nobody.
    DELETE FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
    RETURN _is_gone;
END
$$;

--
-- Name: FUNCTION drop_tenant_role(role text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.drop_tenant_role(role text) IS 'Ends a tenant''s role and its sessions; says whether it is gone.';

--
-- Name: erase_subject(text, text, text, integer, integer); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.erase_subject(tenant text, subject text, actor text DEFAULT SESSION_USER, row_limit integer DEFAULT 1000, look_limit integer DEFAULT 20000) RETURNS TABLE(erased bigint, is_complete boolean, through_seq bigint, seq bigint, recorded_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
#variable_conflict use_column
DECLARE
    _hash     bytea := tidewire.erased_key(erase_subject.tenant, erase_subject.subject);
    _job      tidewire.erasures;
    _seqs     bigint[];
    _times    timestamptz[];
    _produced record;
    _told     record;
    _erased   bigint := 0;
    _complete boolean := false;
    _looked_to bigint;
BEGIN
    IF erase_subject.subject IS NULL OR octet_length(erase_subject.subject) NOT BETWEEN 1 AND 255
       OR erase_subject.row_limit < 1 OR erase_subject.look_limit < 1 THEN
        RAISE EXCEPTION 'a subject is 1 to 255 bytes, and a limit 1 or more' USING ERRCODE = 'TW400';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'erasure needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    UPDATE tidewire.erasure_changes AS c SET version = c.version + 1;
    IF EXISTS (SELECT FROM tidewire.watches AS w WHERE w.tenant = erase_subject.tenant) THEN
        PERFORM pg_advisory_xact_lock(1953064041, 0);
        DELETE FROM tidewire.watched AS o USING tidewire.watches AS w
         WHERE w.tenant = erase_subject.tenant AND o.tenant = w.tenant AND o.watch = w.name
           AND o.subject = erase_subject.subject;
    END IF;
    INSERT INTO tidewire.erasures AS j (tenant, subject_sha256, asked_by)
    VALUES (erase_subject.tenant, _hash, erase_subject.actor)
        ON CONFLICT (tenant, subject_sha256) DO UPDATE
        SET asked_by = excluded.asked_by, began_at = clock_timestamp(), ended_at = NULL, looked_to_seq = 0, erased = 0
      WHERE j.ended_at IS NOT NULL;
    SELECT j.* INTO STRICT _job FROM tidewire.erasures AS j
     WHERE j.tenant = erase_subject.tenant AND j.subject_sha256 = _hash;

    SELECT coalesce(array_agg(f.seq), '{}'), coalesce(array_agg(f.recorded_at), '{}') INTO _seqs, _times
      FROM (SELECT e.seq, e.recorded_at FROM tidewire.events AS e
             WHERE e.tenant = erase_subject.tenant AND e.subject = erase_subject.subject
               AND (NOT starts_with(e.topic, 'tidewire.')
                    OR (e.topic = 'tidewire.audit.token.revoked' AND e.data ->> 'claim' = 'sub' AND e.source <> e.subject))
             ORDER BY e.seq LIMIT erase_subject.row_limit) AS f;
    IF cardinality(_seqs) < erase_subject.row_limit THEN
        -- Up to the one after which there would be too many to change at once.
        SELECT array_agg(p.seq) FILTER (WHERE p.is_theirs) AS seqs, array_agg(p.recorded_at) FILTER (WHERE p.is_theirs) AS times,
               max(p.seq) AS looked_to, count(*) < erase_subject.look_limit AND NOT coalesce(bool_or(p.is_cut), false) AS is_end
          INTO _produced
          FROM (SELECT l.*, count(*) FILTER (WHERE l.is_theirs) OVER (ORDER BY l.seq) >= erase_subject.row_limit AS is_cut,
                       count(*) FILTER (WHERE l.is_theirs) OVER (ORDER BY l.seq) AS nth
                  FROM (SELECT e.seq, e.recorded_at, coalesce(e.source = erase_subject.subject, false)
                                   AND NOT starts_with(e.topic, 'tidewire.') AS is_theirs
                          FROM tidewire.events AS e
                         WHERE e.tenant = erase_subject.tenant AND e.seq > _job.looked_to_seq
                         ORDER BY e.seq LIMIT erase_subject.look_limit) AS l) AS p
         WHERE p.nth < erase_subject.row_limit OR (p.nth = erase_subject.row_limit AND p.is_theirs);
        _seqs := _seqs || coalesce(_produced.seqs, '{}');
        _times := _times || coalesce(_produced.times, '{}');
        _complete := _produced.is_end;
        _looked_to := _produced.looked_to;
    END IF;

    IF cardinality(_seqs) > 0 THEN
        _erased := tidewire.redact(erase_subject.tenant, _seqs, (SELECT min(t.at) FROM unnest(_times) AS t(at)),
                                   (SELECT max(t.at) FROM unnest(_times) AS t(at)), erase_subject.subject);
    END IF;
    UPDATE tidewire.erasures AS j
       SET erased = j.erased + _erased, looked_to_seq = greatest(j.looked_to_seq, _looked_to),
           ended_at = CASE WHEN _complete THEN clock_timestamp() END
     WHERE j.tenant = erase_subject.tenant AND j.subject_sha256 = _hash
    RETURNING j.* INTO _job;
    IF _erased > 0 OR _complete THEN
        INSERT INTO tidewire.events AS e (tenant, id, topic, subject, source, data)
        VALUES (erase_subject.tenant, tidewire.new_id(), 'tidewire.audit.subject.erased', encode(_hash, 'hex'), erase_subject.actor,
                jsonb_build_object('subject_sha256', encode(_hash, 'hex'), 'events', _erased, 'events_in_all', _job.erased,
                                   'is_complete', _complete))
        RETURNING e.seq, e.recorded_at INTO _told;
        RETURN QUERY SELECT _erased, _complete, (SELECT max(s.seq) FROM unnest(_seqs) AS s(seq)), _told.seq, _told.recorded_at;
    ELSE
        RETURN QUERY SELECT _erased, _complete, NULL::bigint, NULL::bigint, NULL::timestamptz;
    END IF;
END
$$;

--
-- Name: FUNCTION erase_subject(tenant text, subject text, actor text, row_limit integer, look_limit integer); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.erase_subject(tenant text, subject text, actor text, row_limit integer, look_limit integer) IS 'Erases a person from a tenant''s history, a batch a call: SELECT * FROM tidewire.erase_subject(''acme'', ''person-7''), until is_complete.';

--
-- Name: log; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.log (
    is_only boolean DEFAULT true NOT NULL,
    log_id uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    retained_seq bigint DEFAULT 0 NOT NULL,
    retained_at timestamp with time zone DEFAULT to_timestamp((0)::double precision) NOT NULL,
    deduplication_window interval DEFAULT '7 days'::interval NOT NULL,
    disorder_max interval DEFAULT '1 day'::interval NOT NULL,
    CONSTRAINT log_has_one_row CHECK (is_only)
);

--
-- Name: TABLE log; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.log IS 'What this log is and how far back it reaches. One row.';

--
-- Name: erased_key(text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.erased_key(tenant text, name text) RETURNS bytea
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT sha256((uuid_send(l.log_id) || convert_to(((erased_key.tenant || '/'::text) || erased_key.name), 'UTF8'::name))) AS sha256 FROM tidewire.log l);

--
-- Name: FUNCTION erased_key(tenant text, name text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.erased_key(tenant text, name text) IS 'The hash of an erased id or subject.';

--
-- Name: expire_keys(integer); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.expire_keys(row_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
$$;

--
-- Name: FUNCTION expire_keys(row_limit integer); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.expire_keys(row_limit integer) IS 'Forgets ids older than the deduplication window.';

--
-- Name: retention_rules; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.retention_rules (
    tenant text NOT NULL COLLATE pg_catalog."C",
    pattern text NOT NULL COLLATE pg_catalog."C",
    days integer NOT NULL,
    changed_by text DEFAULT SESSION_USER NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    applied_seq bigint DEFAULT 0 NOT NULL,
    removed bigint DEFAULT 0 NOT NULL,
    removed_at timestamp with time zone,
    is_reserved boolean GENERATED ALWAYS AS (starts_with(pattern, 'tidewire.'::text)) STORED NOT NULL,
    topic_regex text GENERATED ALWAYS AS ((('^'::text || replace(replace(replace(regexp_replace(pattern, '\*$'::text, '@'::text), '.'::text, '\.'::text), '*'::text, '[^.]+'::text), '@'::text, '.+'::text)) || '$'::text)) STORED NOT NULL COLLATE pg_catalog."C",
    specificity text GENERATED ALWAYS AS (replace(regexp_replace(regexp_replace((pattern || '.'::text), '[a-z0-9_-]+\.'::text, '~'::text, 'g'::text), '\*\.$'::text, ' '::text), '*.'::text, '!'::text)) STORED NOT NULL COLLATE pg_catalog."C",
    looked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    through_at timestamp with time zone,
    young_at timestamp with time zone,
    batch_rows integer,
    CONSTRAINT retention_rules_batch_rows_are_some CHECK ((batch_rows >= 1)),
    CONSTRAINT retention_rules_days_are_some CHECK (((days >= 1) AND (days <= 36500))),
    CONSTRAINT retention_rules_keep_the_audit CHECK (((days >= 365) OR (NOT starts_with(pattern, 'tidewire.'::text)))),
    CONSTRAINT retention_rules_pattern_is_one CHECK (((octet_length(pattern) <= 255) AND (pattern ~ '^([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*)){0,7}$'::text))),
    CONSTRAINT retention_rules_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE retention_rules; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.retention_rules IS 'How many days a tenant keeps the events of a topic pattern, and what that has removed.';

--
-- Name: find_due(tidewire.retention_rules, bigint, timestamp with time zone, bigint, bigint); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamp with time zone, row_limit bigint, bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamp with time zone, OUT latest timestamp with time zone, OUT bytes bigint, OUT young_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    _last bigint;
    _stop bigint;
BEGIN
    -- The last of a full batch. What is young is looked for before it alone: the chunk of the cutoff may hold millions that are older,
    -- and they would be gone through for each batch.
    SELECT s.seq INTO _last FROM tidewire.events AS s
     WHERE s.tenant = find_due.rule.tenant AND s.seq > find_due.rule.applied_seq AND s.seq <= find_due.watermark
       AND s.recorded_at < find_due.cutoff
     ORDER BY s.seq OFFSET greatest(find_due.row_limit, 1) - 1 LIMIT 1;
    SELECT e.seq, e.recorded_at INTO _stop, young_at FROM tidewire.events AS e
     WHERE e.tenant = find_due.rule.tenant AND e.seq > find_due.rule.applied_seq AND e.recorded_at >= find_due.cutoff
       AND (_last IS NULL OR e.seq < _last)
     ORDER BY e.seq LIMIT 1;
    WITH looked AS MATERIALIZED (
        SELECT s.seq, s.recorded_at, s.topic, s.erased_at IS NULL AS is_there,
               coalesce(pg_column_size(s.data), 0) + coalesce(pg_column_size(s.bytes), 0) AS bytes
          FROM tidewire.events AS s
         WHERE s.tenant = find_due.rule.tenant AND s.seq > find_due.rule.applied_seq AND s.seq <= find_due.watermark
           AND s.seq < coalesce(_stop, find_due.watermark + 1) AND s.recorded_at < find_due.cutoff
         ORDER BY s.seq LIMIT find_due.row_limit
    ), own AS MATERIALIZED (
        SELECT t.topic FROM tidewire.rules_by_topic(find_due.rule.tenant, ARRAY(
                   SELECT DISTINCT l.topic FROM looked AS l WHERE l.is_there AND l.topic ~ find_due.rule.topic_regex)) AS t
         WHERE t.pattern = find_due.rule.pattern
    ), judged AS (
        SELECT l.*, l.is_there AND l.topic IN (SELECT o.topic FROM own AS o) AS is_due FROM looked AS l
    ), weighed AS (
        SELECT d.*, coalesce(sum(d.bytes) FILTER (WHERE d.is_due) OVER (
                   ORDER BY d.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
          FROM judged AS d
    )
    SELECT count(*), max(l.seq), array_agg(l.seq) FILTER (WHERE l.is_due), min(l.recorded_at) FILTER (WHERE l.is_due),
           max(l.recorded_at) FILTER (WHERE l.is_due), coalesce(sum(l.bytes) FILTER (WHERE l.is_due), 0)
      INTO looked, looked_to, seqs, earliest, latest, bytes
      FROM weighed AS l WHERE l.bytes_before < find_due.bytes_limit;
END
$$;

--
-- Name: FUNCTION find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamp with time zone, row_limit bigint, bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamp with time zone, OUT latest timestamp with time zone, OUT bytes bigint, OUT young_at timestamp with time zone); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamp with time zone, row_limit bigint, bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamp with time zone, OUT latest timestamp with time zone, OUT bytes bigint, OUT young_at timestamp with time zone) IS 'The next batch of a tenant''s events for a rule; for tidewire.apply_retention().';

--
-- Name: floor_class(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.floor_class() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 1953064037;

--
-- Name: forget_samples(text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.forget_samples(subject text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $$
DECLARE
    _table  regclass;
    _tables integer := 0;
BEGIN
    FOR _table IN
        SELECT DISTINCT c.oid::regclass FROM pg_stats AS s
          JOIN pg_namespace AS n ON n.nspname = s.schemaname
          JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
         WHERE s.attname = 'subject'
           AND (c.oid = 'tidewire.events'::regclass
                OR c.oid IN (SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = 'tidewire.events'::regclass))
           AND (forget_samples.subject = ANY (s.most_common_vals::text::text[])
                OR forget_samples.subject = ANY (s.histogram_bounds::text::text[]))
    LOOP
        EXECUTE format('ANALYZE %s (subject)', _table);
        _tables := _tables + 1;
    END LOOP;
    RETURN _tables;
END
$$;

--
-- Name: FUNCTION forget_samples(subject text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.forget_samples(subject text) IS 'Takes an erased subject out of what the planner has sampled.';

--
-- Name: has_short_writer(bigint); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.has_short_writer(below bigint) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
WITH held AS MATERIALIZED (
    SELECT l.pid, l.classid::bigint AS class, l.objid::bigint AS low
      FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.pid <> pg_backend_pid()
       AND l.classid::bigint IN (tidewire.floor_class(), 1953064035)
       AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
)
SELECT EXISTS (
    SELECT FROM held AS f JOIN pg_stat_activity AS a ON a.pid = f.pid
     WHERE f.class = tidewire.floor_class()
       -- As in tidewire.watermark(): the floor, seen from the place.
       AND ((has_short_writer.below - f.low) & 4294967295) BETWEEN 1 AND 2147483648
       AND a.xact_start > clock_timestamp() - interval '200 ms'
       AND NOT EXISTS (SELECT FROM held AS s WHERE s.pid = f.pid AND s.class = 1953064035));
$$;

--
-- Name: FUNCTION has_short_writer(below bigint); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.has_short_writer(below bigint) IS 'Whether a transaction of less than 200 ms may still commit an event below this place.';

--
-- Name: idempotency_key(text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.idempotency_key(tenant text, id text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SUBSTRING(convert_to(id, 'UTF8'::name) FROM 1 FOR 8) || SUBSTRING(sha256(convert_to(((tenant || '/'::text) || id), 'UTF8'::name)) FROM 1 FOR 16));

--
-- Name: is_reserved(text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.is_reserved(topic text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((topic = 'tidewire'::text) OR starts_with(topic, 'tidewire.'::text));

--
-- Name: FUNCTION is_reserved(topic text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.is_reserved(topic text) IS 'Whether a topic is one that the log keeps for itself (tidewire.…).';

--
-- Name: judge_watched(text[], text[], text[], text[], timestamp with time zone[]); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.judge_watched(tenants text[], watches text[], subjects text[], verdicts text[], due_ats timestamp with time zone[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    WITH judged AS (
        SELECT j.* FROM unnest(judge_watched.tenants, judge_watched.watches, judge_watched.subjects, judge_watched.verdicts,
                               judge_watched.due_ats) AS j(tenant, watch, subject, verdict, due_at)
    ), changed AS (
        UPDATE tidewire.watched AS o
           SET is_stalled = CASE j.verdict WHEN 'stalls' THEN true WHEN 'recovers' THEN false ELSE o.is_stalled END,
               since = CASE WHEN j.verdict IN ('stalls', 'recovers') THEN clock_timestamp() ELSE o.since END,
               silent_seq = CASE WHEN j.verdict IN ('stalls', 'goes_on') THEN o.last_seen_seq ELSE o.silent_seq END,
               silent_at = CASE WHEN j.verdict = 'stalls' THEN o.last_seen_at ELSE o.silent_at END,
               due_at = CASE WHEN j.verdict = 'later' THEN j.due_at ELSE o.due_at END
          FROM judged AS j
         WHERE o.tenant = j.tenant AND o.watch = j.watch AND o.subject = j.subject
           AND (j.verdict <> 'stalls' OR NOT o.is_stalled) AND (j.verdict <> 'recovers' OR o.is_stalled)
        RETURNING o.*, j.verdict
    ), told AS (
        SELECT c.*, w.within_s,
               extract(epoch FROM CASE c.verdict WHEN 'stalls' THEN clock_timestamp() ELSE c.last_seen_at END - c.silent_at) AS silent_s
          FROM changed AS c JOIN tidewire.watches AS w ON w.tenant = c.tenant AND w.name = c.watch
         WHERE c.verdict IN ('stalls', 'recovers')
    )
    INSERT INTO tidewire.events (tenant, id, topic, subject, source, priority, data)
    SELECT t.tenant, tidewire.new_id(), CASE t.verdict WHEN 'stalls' THEN 'agent.stalled' ELSE 'agent.recovered' END, t.subject,
           'tidewire.watch', 'high',
           jsonb_build_object('watch', t.watch, 'within_s', t.within_s, 'silent_s', round(t.silent_s, 3),
               'last_seen_at', to_char(t.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'last_cursor', tidewire.cursor(t.last_seen_seq, t.last_seen_at))
      FROM told AS t ORDER BY t.last_seen_seq;
END
$$;

--
-- Name: FUNCTION judge_watched(tenants text[], watches text[], subjects text[], verdicts text[], due_ats timestamp with time zone[]); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.judge_watched(tenants text[], watches text[], subjects text[], verdicts text[], due_ats timestamp with time zone[]) IS 'Writes down which watched subjects have stalled or recovered, and says so in the log; for the server.';

--
-- Name: lost_by_rules(regclass, text[]); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.lost_by_rules(chunk regclass, tenants text[] DEFAULT NULL::text[]) RETURNS TABLE(tenant text, pattern text, events bigint, last_seq bigint, last_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH held AS MATERIALIZED (
             SELECT c.tenant, c.topic, max(c.seq) AS last_seq, max(c.recorded_at) AS latest,
                    count(*) FILTER (WHERE c.erased_at IS NULL) AS events
               FROM %1$s AS c %2$s GROUP BY c.tenant, c.topic
         ), ruled AS MATERIALIZED (
             SELECT t.tenant, r.topic, r.pattern, r.days
               FROM (SELECT h.tenant, array_agg(h.topic) AS topics FROM held AS h GROUP BY h.tenant) AS t
              CROSS JOIN LATERAL tidewire.rules_by_topic(t.tenant, t.topics) AS r
         )
         SELECT l.tenant, l.pattern, l.events, l.last_seq,
                (SELECT c.recorded_at FROM %1$s AS c WHERE c.tenant = l.tenant AND c.seq = l.last_seq LIMIT 1)
           FROM (SELECT k.tenant, k.pattern, sum(k.events)::bigint AS events, max(k.last_seq) AS last_seq
                   FROM (SELECT h.tenant, h.events, h.last_seq,
                                CASE WHEN h.latest < clock_timestamp() - r.days * interval ''24 hours'' THEN r.pattern END AS pattern
                           FROM held AS h LEFT JOIN ruled AS r ON r.tenant = h.tenant AND r.topic = h.topic) AS k
                  GROUP BY k.tenant, k.pattern) AS l',
        lost_by_rules.chunk, CASE WHEN lost_by_rules.tenants IS NOT NULL THEN 'WHERE c.tenant = ANY ($1)' END)
    USING lost_by_rules.tenants;
END
$_$;

--
-- Name: FUNCTION lost_by_rules(chunk regclass, tenants text[]); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.lost_by_rules(chunk regclass, tenants text[]) IS 'What goes with a chunk, by tenant and rule; for tidewire.retain_by_rules().';

--
-- Name: events_seq; Type: SEQUENCE; Schema: tidewire; Owner: -
--

CREATE SEQUENCE tidewire.events_seq
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

--
-- Name: events; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.events (
    seq bigint DEFAULT nextval('tidewire.events_seq'::regclass) NOT NULL,
    recorded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    occurred_at timestamp with time zone,
    priority tidewire.priority DEFAULT 'normal'::tidewire.priority NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    id text DEFAULT (gen_random_uuid())::text NOT NULL COLLATE pg_catalog."C",
    topic text NOT NULL COLLATE pg_catalog."C",
    subject text COLLATE pg_catalog."C",
    source text COLLATE pg_catalog."C",
    region text COLLATE pg_catalog."C",
    trace text COLLATE pg_catalog."C",
    content_type text COLLATE pg_catalog."C",
    gdpr jsonb,
    data jsonb,
    bytes bytea,
    erased_at timestamp with time zone,
    CONSTRAINT events_bytes_are_bounded CHECK ((octet_length(bytes) <= 1048576)),
    CONSTRAINT events_bytes_have_a_type CHECK ((((bytes IS NULL) = (content_type IS NULL)) AND ((bytes IS NULL) OR (data IS NULL)))),
    CONSTRAINT events_content_type_is_printable CHECK ((((octet_length(content_type) >= 1) AND (octet_length(content_type) <= 255)) AND (content_type !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT events_data_is_bounded CHECK ((pg_column_size(data) <= 8388608)),
    CONSTRAINT events_data_is_short CHECK ((octet_length((data)::text) <= 4194304)),
    CONSTRAINT events_gdpr_is_object CHECK (((jsonb_typeof(gdpr) = 'object'::text) AND (octet_length((gdpr)::text) <= 4096))),
    CONSTRAINT events_id_is_printable CHECK ((((octet_length(id) >= 1) AND (octet_length(id) <= 255)) AND (id !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT events_occurred_at_is_a_date CHECK (((occurred_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (occurred_at < '10000-01-01 00:00:00+00'::timestamp with time zone))),
    CONSTRAINT events_region_is_short CHECK ((((octet_length(region) >= 1) AND (octet_length(region) <= 64)) AND (region !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT events_source_is_printable CHECK ((((octet_length(source) >= 1) AND (octet_length(source) <= 255)) AND (source !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT events_subject_is_printable CHECK ((((octet_length(subject) >= 1) AND (octet_length(subject) <= 255)) AND (subject !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT events_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT events_topic_is_dotted CHECK (((octet_length(topic) <= 255) AND (topic ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+){0,7}$'::text))),
    CONSTRAINT events_trace_is_traceparent CHECK ((trace ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'::text))
);
ALTER TABLE ONLY tidewire.events ALTER COLUMN occurred_at SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN priority SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN id SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN topic SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN source SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN region SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN trace SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN content_type SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN gdpr SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN data SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN bytes SET STATISTICS 0;
ALTER TABLE ONLY tidewire.events ALTER COLUMN erased_at SET STATISTICS 0;

--
-- Name: TABLE events; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.events IS 'The log: one row per event, append-only, in the order of seq. Write with tidewire.append(), INSERT or COPY.';

--
-- Name: COLUMN events.seq; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.seq IS 'Place in the log: rises, gaps allowed. Given by the log, never by the writer.';

--
-- Name: COLUMN events.recorded_at; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.recorded_at IS 'When the row was written (database clock); the partitioning column.';

--
-- Name: COLUMN events.occurred_at; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.occurred_at IS 'When the fact happened, if the writer said so.';

--
-- Name: COLUMN events.priority; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.priority IS 'How long the event may wait to be batched, and who is shed first.';

--
-- Name: COLUMN events.tenant; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.tenant IS 'The company that owns the event.';

--
-- Name: COLUMN events.id; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.id IS 'Unique within its tenant for the deduplication window.';

--
-- Name: COLUMN events.topic; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.topic IS 'Dotted lower-case path, 1 to 8 segments: agent.state.updated.';

--
-- Name: COLUMN events.subject; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.subject IS 'The thing the event is about: agent-001.';

--
-- Name: COLUMN events.source; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.source IS 'Who produced it.';

--
-- Name: COLUMN events.region; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.region IS 'Where it was produced or must be kept.';

--
-- Name: COLUMN events.trace; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.trace IS 'W3C traceparent of the producer.';

--
-- Name: COLUMN events.content_type; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.content_type IS 'Media type of bytes.';

--
-- Name: COLUMN events.gdpr; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.gdpr IS 'Consent and legal basis as the writer gave them.';

--
-- Name: COLUMN events.data; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.data IS 'The payload as JSON.';

--
-- Name: COLUMN events.bytes; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.bytes IS 'The payload as bytes, instead of data.';

--
-- Name: COLUMN events.erased_at; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.events.erased_at IS 'When what the event said was erased; its place, topic and time are left.';

--
-- Name: may_act_for_log(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.may_act_for_log() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN pg_has_role(SESSION_USER, (SELECT c.relowner FROM pg_class c WHERE (c.oid = ('tidewire.events'::regclass)::oid)), 'USAGE'::text);

--
-- Name: FUNCTION may_act_for_log(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.may_act_for_log() IS 'Whether the logged-in role may use the rights of the log''s owner.';

--
-- Name: my_subject(text, bigint); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.my_subject(of_subject text, after_seq bigint DEFAULT 0) RETURNS TABLE(seq bigint, recorded_at timestamp with time zone, occurred_at timestamp with time zone, topic text, subject text, source text, priority tidewire.priority, id text, region text, gdpr jsonb, trace text, data jsonb, bytes bytea, content_type text)
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 100
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
SELECT e.seq, e.recorded_at, coalesce(e.occurred_at, e.recorded_at), e.topic, e.subject, e.source, e.priority, e.id,
       e.region, e.gdpr, e.trace, e.data, e.bytes, e.content_type
  FROM tidewire.events AS e
 WHERE e.tenant = (SELECT tidewire.current_tenant()) AND e.subject = my_subject.of_subject AND e.seq > my_subject.after_seq
   AND ((SELECT tidewire.sees_reserved()) OR NOT tidewire.is_reserved(e.topic))
 ORDER BY e.seq
$$;

--
-- Name: FUNCTION my_subject(of_subject text, after_seq bigint); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.my_subject(of_subject text, after_seq bigint) IS 'The events of one subject of the logged-in role''s tenant: SELECT * FROM tidewire.my_subject(''deal-7'').';

--
-- Name: new_id(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.new_id() RETURNS text
    LANGUAGE sql PARALLEL SAFE
    RETURN ((encode(set_bit(set_bit(OVERLAY(uuid_send(gen_random_uuid()) PLACING SUBSTRING(int8send(((EXTRACT(epoch FROM clock_timestamp()) * (1000)::numeric))::bigint) FROM 3) FROM 1 FOR 6), (52)::bigint, 1), (53)::bigint, 1), 'hex'::text))::uuid)::text;

--
-- Name: FUNCTION new_id(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.new_id() IS 'A new event id (UUIDv7).';

--
-- Name: prepare_chunks(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.prepare_chunks() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $$
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
$$;

--
-- Name: FUNCTION prepare_chunks(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.prepare_chunks() IS 'Creates the chunks of the present and of the time after it, so that no writer has to.';

--
-- Name: record_append(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_append() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
$$;

--
-- Name: FUNCTION record_append(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_append() IS 'Trigger: remembers the ids of new events, refuses forged places, wakes the servers that sleep.';

--
-- Name: record_credential(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_credential() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _row  jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
    _what text := CASE TG_TABLE_NAME WHEN 'api_keys' THEN 'api_key' ELSE 'token' END;
    _did  text;
BEGIN
    IF TG_TABLE_NAME = 'revoked_tokens' AND TG_OP = 'DELETE' AND (_row ->> 'until')::timestamptz < now() - interval '1 day' THEN
        -- It had ended by itself: nobody did anything.
        RETURN NULL;
    ELSIF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'DELETE'
          AND least((_row ->> 'revoked_at')::timestamptz, (_row ->> 'expires_at')::timestamptz) < now() - interval '90 days' THEN
        -- It ended long ago, which was said if somebody did it.
        RETURN NULL;
    ELSIF TG_TABLE_NAME = 'revoked_tokens' THEN
        _did := CASE TG_OP WHEN 'DELETE' THEN 'forgotten' ELSE 'revoked' END;
    ELSIF TG_OP = 'INSERT' THEN
        _did := 'created';
    ELSIF TG_OP = 'DELETE' THEN
        _did := 'deleted';
    ELSIF (OLD.revoked_at IS NULL) AND (NEW.revoked_at IS NOT NULL) THEN
        _did := 'revoked';
    ELSE
        _did := 'changed';
    END IF;
    INSERT INTO tidewire.events (tenant, topic, subject, source, data)
    VALUES (_row ->> 'tenant', format('tidewire.audit.%s.%s', _what, _did),
            coalesce(_row ->> 'key_id', CASE WHEN TG_OP <> 'DELETE' OR _row ->> 'claim' <> 'sub' THEN _row ->> 'value' END),
            CASE _did WHEN 'created' THEN _row ->> 'created_by'
                      WHEN 'revoked' THEN _row ->> 'revoked_by'
                      WHEN 'forgotten' THEN coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user::text)
                      ELSE session_user::text END,
            _row - 'secret_sha256' - 'last_used_at' - 'tenant' - 'name'
                 - CASE WHEN TG_OP = 'DELETE' AND _row ->> 'claim' = 'sub' THEN 'value' ELSE '' END);
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION record_credential(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_credential() IS 'Trigger: writes an audit event about a credential.';

--
-- Name: record_retention_rule(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_retention_rule() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _is_other boolean := false;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        _is_other := (OLD.tenant, OLD.pattern) <> (NEW.tenant, NEW.pattern);
    END IF;
    IF TG_OP = 'DELETE' OR _is_other THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(OLD.tenant));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0, through_at = NULL
         WHERE r.tenant = OLD.tenant AND r.specificity < OLD.specificity
           AND NOT EXISTS (
               SELECT FROM unnest(string_to_array(r.pattern, '.'), string_to_array(OLD.pattern, '.')) AS s(own, gone)
                WHERE s.own <> s.gone AND s.own <> '*' AND s.gone <> '*');
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(NEW.tenant));
    ELSIF _is_other THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(NEW.tenant));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0, through_at = NULL
         WHERE r.tenant = NEW.tenant AND r.pattern = NEW.pattern;
    END IF;
    -- Last: an open writer holds readers back, so it waits for nobody.
    IF TG_OP = 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (OLD.tenant, tidewire.new_id(), 'tidewire.audit.retention.removed',
                coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user),
                jsonb_build_object('pattern', OLD.pattern, 'days', OLD.days));
    ELSE
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (NEW.tenant, tidewire.new_id(), 'tidewire.audit.retention.set', NEW.changed_by,
                jsonb_build_object('pattern', NEW.pattern, 'days', NEW.days));
    END IF;
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION record_retention_rule(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_retention_rule() IS 'Trigger: writes an audit event about a retention rule, and has those applied anew that may count for more topics now.';

--
-- Name: record_setting(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_setting() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _row jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
BEGIN
    INSERT INTO tidewire.events (tenant, topic, subject, source, data)
    VALUES (_row ->> 'tenant',
            CASE WHEN TG_TABLE_NAME = 'tenant_settings' THEN 'tidewire.audit.settings.changed'
                 WHEN TG_OP = 'DELETE' THEN 'tidewire.audit.topic.withdrawn'
                 ELSE 'tidewire.audit.topic.declared' END,
            _row ->> 'pattern',
            CASE TG_OP WHEN 'DELETE' THEN coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user::text)
                       ELSE _row ->> 'changed_by' END,
            _row - 'tenant' - 'changed_by' - 'changed_at');
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION record_setting(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_setting() IS 'Trigger: writes an audit event about a tenant''s settings.';

--
-- Name: record_sql_appends(integer, boolean); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_sql_appends(row_limit integer DEFAULT 20000, is_written boolean DEFAULT true) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _topics_max CONSTANT integer := 50; -- that are told apart of one role, as the server does (src/http/audit.rs)
    _taken bigint;
BEGIN
    WITH taken AS (
        DELETE FROM tidewire.sql_appends AS s
         WHERE s.ctid = ANY (ARRAY(SELECT f.ctid FROM tidewire.sql_appends AS f
                                    LIMIT record_sql_appends.row_limit FOR UPDATE SKIP LOCKED))
        RETURNING s.role, s.tenant, s.topic, s.events, s.appended_at
    ), by_topic AS (
        SELECT t.role, t.tenant, t.topic, sum(t.events) AS events, min(t.appended_at) AS first_at, max(t.appended_at) AS last_at,
               row_number() OVER (PARTITION BY t.role, t.tenant ORDER BY sum(t.events) DESC, t.topic) AS nth
          FROM taken AS t GROUP BY t.role, t.tenant, t.topic
    ), told_apart AS (
        SELECT b.role, b.tenant, CASE WHEN b.nth <= _topics_max THEN b.topic ELSE 'others' END AS topic,
               sum(b.events)::bigint AS events, min(b.first_at) AS first_at, max(b.last_at) AS last_at
          FROM by_topic AS b GROUP BY 1, 2, 3
    ), written AS (
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT a.tenant, tidewire.new_id(), 'tidewire.audit.events.appended', a.name, a.name,
               jsonb_build_object('by', a.name, 'role', 'sql', 'credential', jsonb_build_object('sql_role', a.name),
                   'count', sum(a.events)::bigint, 'topics', jsonb_object_agg(a.topic, a.events),
                   'first_at', to_char(min(a.first_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   'last_at', to_char(max(a.last_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
          FROM (SELECT o.*, regexp_replace(o.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name FROM told_apart AS o) AS a
         WHERE record_sql_appends.is_written GROUP BY a.tenant, a.role, a.name
    )
    SELECT count(*) INTO _taken FROM taken AS t;
    RETURN _taken;
END
$$;

--
-- Name: FUNCTION record_sql_appends(row_limit integer, is_written boolean); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_sql_appends(row_limit integer, is_written boolean) IS 'Writes who appended in SQL into the tenants'' logs; call it until it returns less than row_limit.';

--
-- Name: record_subject_read(text, text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_subject_read(tenant text, subject text, actor text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _hash text := encode(tidewire.erased_key(record_subject_read.tenant, record_subject_read.subject), 'hex');
BEGIN
    INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
    VALUES (record_subject_read.tenant, tidewire.new_id(), 'tidewire.audit.subject.read', _hash, record_subject_read.actor,
            jsonb_build_object('subject_sha256', _hash));
END
$$;

--
-- Name: FUNCTION record_subject_read(tenant text, subject text, actor text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_subject_read(tenant text, subject text, actor text) IS 'Writes an audit event: somebody has asked for what is held of a subject.';

--
-- Name: record_tenant_role(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_tenant_role() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _has_moved boolean := false;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        _has_moved := (OLD.role, OLD.tenant) <> (NEW.role, NEW.tenant);
    END IF;
    IF TG_OP = 'DELETE' OR _has_moved THEN
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT OLD.tenant, tidewire.new_id(), 'tidewire.audit.sql_role.removed', o.name, session_user,
               jsonb_build_object('role', o.name, 'is_admin', OLD.is_admin)
          FROM (SELECT regexp_replace(OLD.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name) AS o;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT NEW.tenant, tidewire.new_id(),
               CASE WHEN TG_OP = 'INSERT' OR _has_moved THEN 'tidewire.audit.sql_role.created'
                    ELSE 'tidewire.audit.sql_role.changed' END, n.name, session_user,
               jsonb_build_object('role', n.name, 'is_admin', NEW.is_admin, 'may_write', coalesce(
                   (SELECT pg_has_role(r.oid, to_regrole('tidewire_writer'), 'MEMBER') FROM pg_roles AS r WHERE r.rolname = NEW.role),
                   false))
          FROM (SELECT regexp_replace(NEW.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name) AS n;
    END IF;
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION record_tenant_role(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_tenant_role() IS 'Trigger: writes an audit event about a role of a tenant.';

--
-- Name: record_watch(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.record_watch() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.topics <> NEW.topics THEN
            DELETE FROM tidewire.watched AS o WHERE o.tenant = NEW.tenant AND o.watch = NEW.name;
            UPDATE tidewire.watches AS w SET since_seq = DEFAULT, since_at = DEFAULT, overflowed_at = NULL
             WHERE w.tenant = NEW.tenant AND w.name = NEW.name;
        ELSIF OLD.within_s <> NEW.within_s THEN
            UPDATE tidewire.watched AS o SET due_at = o.due_at + (NEW.within_s - OLD.within_s) * interval '1 second'
             WHERE o.tenant = NEW.tenant AND o.watch = NEW.name;
        END IF;
    END IF;
    -- Last: an open writer holds readers back, so it waits for nobody.
    IF TG_OP = 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (OLD.tenant, tidewire.new_id(), 'tidewire.audit.watch.removed',
                coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user),
                jsonb_build_object('watch', OLD.name, 'topics', OLD.topics, 'within_s', OLD.within_s));
    ELSE
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (NEW.tenant, tidewire.new_id(), 'tidewire.audit.watch.set', NEW.changed_by,
                jsonb_build_object('watch', NEW.name, 'topics', NEW.topics, 'within_s', NEW.within_s));
    END IF;
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION record_watch(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.record_watch() IS 'Trigger: writes an audit event about a watch, and fits its subjects to it.';

--
-- Name: redact(text, bigint[], timestamp with time zone, timestamp with time zone, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.redact(tenant text, seqs bigint[], recorded_from timestamp with time zone, recorded_to timestamp with time zone, person text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
DECLARE
    _redacted bigint := 0;
    _changed  bigint;
    _chunk    text;
    -- Of a row, as it was.
    _is_whole CONSTANT text := '($5 IS NULL OR coalesce(e.subject = $5, true))';
    _version  bigint := (SELECT c.version FROM tidewire.erasure_changes AS c);
BEGIN
    WITH erased AS (
        SELECT e.id, e.seq, e.recorded_at FROM tidewire.events AS e
         WHERE e.seq = ANY (redact.seqs) AND e.tenant = redact.tenant
           AND e.recorded_at BETWEEN redact.recorded_from AND redact.recorded_to AND e.erased_at IS NULL
           AND (redact.person IS NULL OR coalesce(e.subject = redact.person, true) OR strpos(e.id, redact.person) > 0)
    ), forgotten AS (
        -- As an array: by the index, however many keys there are.
        DELETE FROM tidewire.idempotency_keys AS k
         WHERE k.key = ANY (ARRAY(SELECT tidewire.idempotency_key(redact.tenant, e.id) FROM erased AS e))
           AND k.seq = ANY (redact.seqs)
        RETURNING k.seq, k.recorded_at
    )
    INSERT INTO tidewire.erased_ids AS x (key, seq, recorded_at)
    SELECT sha256(uuid_send(l.log_id) || convert_to(redact.tenant || '/' || e.id, 'UTF8')), f.seq, f.recorded_at
      FROM forgotten AS f JOIN erased AS e ON e.seq = f.seq CROSS JOIN tidewire.log AS l
        ON CONFLICT (key) DO UPDATE SET seq = excluded.seq, recorded_at = excluded.recorded_at;

    PERFORM set_config('tidewire.erasure', 'open', true);
    FOR _chunk IN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name) FROM timescaledb_information.chunks AS c
         WHERE c.hypertable_schema = 'tidewire' AND c.hypertable_name = 'events'
           AND c.range_start <= redact.recorded_to AND c.range_end > redact.recorded_from
         ORDER BY c.range_start
    LOOP
        -- Without a join of the chunk with itself: where its statistics are wrong, that went through all of the batch for each of it.
        EXECUTE format(
            'UPDATE %1$s AS e
                SET id = CASE WHEN %2$s OR strpos(e.id, $5) > 0 THEN gen_random_uuid()::text ELSE e.id END,
                    source = CASE WHEN $5 IS NOT NULL AND starts_with(e.topic, ''tidewire.'') THEN e.source END,
                    trace = NULL,
                    subject = CASE WHEN NOT %2$s THEN e.subject END,
                    occurred_at = CASE WHEN NOT %2$s THEN e.occurred_at END,
                    region = CASE WHEN NOT %2$s THEN e.region END,
                    gdpr = CASE WHEN NOT %2$s THEN e.gdpr END,
                    data = CASE WHEN NOT %2$s THEN e.data END,
                    bytes = CASE WHEN NOT %2$s THEN e.bytes END,
                    content_type = CASE WHEN NOT %2$s THEN e.content_type END,
                    erased_at = CASE WHEN %2$s THEN clock_timestamp() END
              WHERE e.seq = ANY ($2) AND e.tenant = $1 AND e.recorded_at BETWEEN $3 AND $4 AND e.erased_at IS NULL', _chunk, _is_whole)
          USING redact.tenant, redact.seqs, redact.recorded_from, redact.recorded_to, redact.person;
        GET DIAGNOSTICS _changed = ROW_COUNT;
        _redacted := _redacted + _changed;
    END LOOP;
    PERFORM set_config('tidewire.erasure', '', true);

    IF _redacted > 0 THEN
        INSERT INTO tidewire.erased_tenants AS t (tenant, version, through_seq)
        VALUES (redact.tenant, _version, (SELECT max(s.seq) FROM unnest(redact.seqs) AS s(seq)))
            ON CONFLICT (tenant) DO UPDATE
            SET version = excluded.version, through_seq = greatest(t.through_seq, excluded.through_seq);
    END IF;
    RETURN _redacted;
END
$_$;

--
-- Name: FUNCTION redact(tenant text, seqs bigint[], recorded_from timestamp with time zone, recorded_to timestamp with time zone, person text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.redact(tenant text, seqs bigint[], recorded_from timestamp with time zone, recorded_to timestamp with time zone, person text) IS 'Empties events in their places; for tidewire.erase_subject() and tidewire.apply_retention().';

--
-- Name: refuse_change(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_LEVEL = 'ROW' AND current_setting('tidewire.erasure', true) = 'open' THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION 'the log is append-only: % is refused', TG_OP
        USING ERRCODE = 'TW405', HINT = 'Append a correcting event. Old events leave by tidewire.retain().';
END
$$;

--
-- Name: FUNCTION refuse_change(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.refuse_change() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE.';

--
-- Name: refuse_strong_role(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.refuse_strong_role() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _issues text := (SELECT string_agg(i.issue, '; ') FROM tidewire.tenant_role_issues AS i WHERE i.role = NEW.role);
BEGIN
    IF _issues IS NOT NULL THEN
        RAISE EXCEPTION 'role % cannot be held to tenant %: %', quote_ident(NEW.role), NEW.tenant, _issues
            USING ERRCODE = 'TW403', HINT = 'Take that from it, or use a role of its own: tidewire.create_tenant_role().';
    END IF;
    RETURN NULL;
END
$$;

--
-- Name: FUNCTION refuse_strong_role(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.refuse_strong_role() IS 'Trigger: refuses to give a tenant to a role that could get past it.';

--
-- Name: refuse_truncate(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.refuse_truncate() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% is refused: nobody would hear of it', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'TW405', HINT = 'Use DELETE.';
END
$$;

--
-- Name: FUNCTION refuse_truncate(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.refuse_truncate() IS 'Trigger: refuses TRUNCATE.';

--
-- Name: retain(interval); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.retain(keep interval) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
$$;

--
-- Name: FUNCTION retain(keep interval); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.retain(keep interval) IS 'Removes whole chunks older than keep: SELECT tidewire.retain(''90 days'').';

--
-- Name: retain_by_rules(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.retain_by_rules() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $$
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
$$;

--
-- Name: FUNCTION retain_by_rules(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.retain_by_rules() IS 'Removes the oldest chunk if tenants'' rules keep none of its events; says whether it did.';

--
-- Name: retain_oldest(interval); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.retain_oldest(keep interval) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $_$
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
$_$;

--
-- Name: FUNCTION retain_oldest(keep interval); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.retain_oldest(keep interval) IS 'Removes the oldest chunk if all its events are older than keep; says whether there was one.';

--
-- Name: rules_by_topic(text, text[]); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.rules_by_topic(tenant text, topics text[]) RETURNS TABLE(topic text, pattern text, days integer)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
    _patterns text[];
    _days     integer[];
    _places   jsonb;
BEGIN
    -- By place: the most exact first. In variables, so that no plan compares each topic with each rule.
    SELECT array_agg(r.pattern ORDER BY r.place), array_agg(r.days ORDER BY r.place), jsonb_object_agg(r.pattern, r.place)
      INTO _patterns, _days, _places
      FROM (SELECT o.pattern, o.days, row_number() OVER (ORDER BY o.specificity DESC, o.pattern) AS place
              FROM tidewire.retention_rules AS o WHERE o.tenant = rules_by_topic.tenant) AS r;
    RETURN QUERY
    WITH split AS MATERIALIZED (
        SELECT t.topic, w.words, cardinality(w.words) AS size FROM unnest(rules_by_topic.topics) AS t(topic)
         CROSS JOIN LATERAL (SELECT string_to_array(t.topic, '.') AS words OFFSET 0) AS w
    ), shape AS MATERIALIZED (
        -- As tidewire.retention_rules.specificity has it: ~ a word, ! a star, a blank the closing star.
        SELECT m.marks, cardinality(m.marks) AS size, m.marks[cardinality(m.marks)] = ' ' AS is_open
          FROM (SELECT DISTINCT string_to_array(o.specificity, NULL) AS marks FROM tidewire.retention_rules AS o
                 WHERE o.tenant = rules_by_topic.tenant) AS m
    ), tried AS (
        SELECT s.topic, concat_ws('.',   -- NULL, beyond the shape's end, is left out.
                   CASE WHEN h.marks[1] = '~' THEN s.words[1] WHEN h.size >= 1 THEN '*' END,
                   CASE WHEN h.marks[2] = '~' THEN s.words[2] WHEN h.size >= 2 THEN '*' END,
                   CASE WHEN h.marks[3] = '~' THEN s.words[3] WHEN h.size >= 3 THEN '*' END,
                   CASE WHEN h.marks[4] = '~' THEN s.words[4] WHEN h.size >= 4 THEN '*' END,
                   CASE WHEN h.marks[5] = '~' THEN s.words[5] WHEN h.size >= 5 THEN '*' END,
                   CASE WHEN h.marks[6] = '~' THEN s.words[6] WHEN h.size >= 6 THEN '*' END,
                   CASE WHEN h.marks[7] = '~' THEN s.words[7] WHEN h.size >= 7 THEN '*' END,
                   CASE WHEN h.marks[8] = '~' THEN s.words[8] WHEN h.size >= 8 THEN '*' END) AS pattern
          FROM shape AS h JOIN split AS s ON s.size = h.size OR (h.is_open AND s.size > h.size)
        OFFSET 0
    ), best AS (
        SELECT t.topic, min((_places -> t.pattern)::integer) AS place FROM tried AS t
         WHERE starts_with(t.pattern, 'tidewire.') OR NOT starts_with(t.topic, 'tidewire.')
         GROUP BY t.topic
    )
    SELECT b.topic, _patterns[b.place], _days[b.place] FROM best AS b WHERE b.place IS NOT NULL;
END
$$;

--
-- Name: FUNCTION rules_by_topic(tenant text, topics text[]); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.rules_by_topic(tenant text, topics text[]) IS 'Which of a tenant''s retention rules counts for each topic; for tidewire.find_due() and tidewire.lost_by_rules().';

--
-- Name: rules_of(text[]); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.rules_of(tenants text[]) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(string_agg(concat_ws(' ', r.tenant, r.pattern, r.days), E'\n' ORDER BY r.tenant, r.pattern), '')
      FROM tidewire.retention_rules AS r WHERE r.tenant = ANY (rules_of.tenants);
$$;

--
-- Name: FUNCTION rules_of(tenants text[]); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.rules_of(tenants text[]) IS 'Tenants'' retention rules as a text to compare; for tidewire.retain_by_rules().';

--
-- Name: sees_reserved(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.sees_reserved() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN COALESCE((SELECT r.is_admin FROM tidewire.tenant_roles r WHERE (r.role = SESSION_USER)), false);

--
-- Name: FUNCTION sees_reserved(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.sees_reserved() IS 'Whether the logged-in role sees topics under tidewire.';

--
-- Name: topic_matches(text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.topic_matches(topic text, pattern text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN ((topic ~ (('^'::text || replace(regexp_replace(replace(pattern, '.'::text, '\.'::text), '\*$'::text, '.+'::text), '*'::text, '[^.]+'::text)) || '$'::text)) AND ((NOT starts_with(topic, 'tidewire.'::text)) OR starts_with(pattern, 'tidewire.'::text)));

--
-- Name: FUNCTION topic_matches(topic text, pattern text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.topic_matches(topic text, pattern text) IS 'Whether a topic is one that a topic pattern stands for.';

--
-- Name: undue_locks(integer, integer); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.undue_locks(class integer DEFAULT NULL::integer, key integer DEFAULT NULL::integer) RETURNS TABLE(class integer, key integer, purpose text, pid integer, holder text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    WITH kept (class, key, purpose, is_for_long) AS (
        VALUES (1953064033, NULL::integer, 'a server''s slot', true),
               (1953064034, 0, 'the removal of chunks', false),
               (1953064034, 1, 'tenants'' retention', false),
               (1953064034, 2, 'the log''s epochs', false),
               (1953064038, NULL, 'a tenant''s rules of retention', false),
               (1953064040, NULL, 'a consumer', true),
               (1953064041, 0, 'watches', false)
    ), held AS MATERIALIZED (
        SELECT k.class, l.objid::bigint::bit(32)::integer AS key, k.purpose, l.pid, coalesce(a.usesysid, r.oid) AS role_oid,
               a.application_name, a.state,
               NOT k.is_for_long AND coalesce(CASE WHEN starts_with(a.state, 'idle') THEN a.state_change END, x.prepared)
                   < clock_timestamp() - interval '1 minute' AS is_left
          FROM kept AS k
          JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = k.class::oid
               AND (k.key IS NULL OR l.objid = k.key::oid) AND l.pid IS DISTINCT FROM pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
          LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
          LEFT JOIN pg_prepared_xacts AS x ON l.pid IS NULL AND x.transaction::text = split_part(l.virtualtransaction, '/', 2)
          LEFT JOIN pg_roles AS r ON r.rolname = x.owner
         WHERE k.class = coalesce(undue_locks.class, k.class)
    )
    SELECT h.class, h.key, h.purpose, h.pid,
           format('%s (%s, role %s, %s)', coalesce('process ' || h.pid, 'a prepared transaction'),
                  coalesce(nullif(h.application_name, ''), 'without a name'), coalesce(quote_ident(r.rolname), 'unknown'),
                  coalesce(h.state, 'state unknown'))
      FROM held AS h LEFT JOIN pg_roles AS r ON r.oid = h.role_oid
     WHERE h.key = coalesce(undue_locks.key, h.key)
       AND (h.is_left IS TRUE OR NOT coalesce(
               pg_has_role(h.role_oid, (SELECT c.relowner FROM pg_class AS c WHERE c.oid = 'tidewire.events'::regclass), 'MEMBER')
               OR has_table_privilege(h.role_oid, 'tidewire.retention_rules', 'INSERT, UPDATE, DELETE')
               OR has_table_privilege(h.role_oid, 'tidewire.watches', 'INSERT, UPDATE, DELETE')
               OR EXISTS (SELECT FROM pg_proc AS p
                           WHERE p.pronamespace = 'tidewire'::regnamespace
                             AND p.proname IN ('apply_retention', 'retain_by_rules', 'erase_subject')
                             AND has_function_privilege(h.role_oid, p.oid, 'EXECUTE')), false))
     ORDER BY h.class, h.key, h.pid;
$$;

--
-- Name: FUNCTION undue_locks(class integer, key integer); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.undue_locks(class integer, key integer) IS 'Advisory locks of the log that somebody holds who is not at its work; empty where all is well.';

--
-- Name: users_of(regclass); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.users_of(relation regclass) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT coalesce(string_agg(format('%s (%s, %s)', coalesce('process ' || u.pid, 'a prepared transaction'),
                                      coalesce(nullif(a.application_name, ''), 'without a name'),
                                      coalesce(a.state, a.backend_type, 'of another role')), ', '), 'another transaction')
      FROM (SELECT DISTINCT l.pid FROM pg_locks AS l
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
               AND l.relation = users_of.relation) AS u
      LEFT JOIN pg_stat_activity AS a ON a.pid = u.pid;
$$;

--
-- Name: FUNCTION users_of(relation regclass); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.users_of(relation regclass) IS 'Who else holds a lock on a relation, for a message.';

--
-- Name: wake_servers(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.wake_servers() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _own text := coalesce(current_setting('tidewire.own_slot', true), '');
BEGIN
    -- Each term runs only if those before it found their servers awake; one NOTIFY wakes all.
    IF current_setting('tidewire.notify', true) = 'always'
       OR NOT ((_own = '0' OR pg_try_advisory_xact_lock_shared(1953064036, 0))
           AND (_own = '1' OR pg_try_advisory_xact_lock_shared(1953064036, 1))
           AND (_own = '2' OR pg_try_advisory_xact_lock_shared(1953064036, 2))
           AND (_own = '3' OR pg_try_advisory_xact_lock_shared(1953064036, 3))
           AND (_own = '4' OR pg_try_advisory_xact_lock_shared(1953064036, 4))
           AND (_own = '5' OR pg_try_advisory_xact_lock_shared(1953064036, 5))
           AND (_own = '6' OR pg_try_advisory_xact_lock_shared(1953064036, 6))
           AND (_own = '7' OR pg_try_advisory_xact_lock_shared(1953064036, 7))) THEN
        PERFORM pg_notify('tidewire', '');
    END IF;
END
$$;

--
-- Name: FUNCTION wake_servers(); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.wake_servers() IS 'Sends NOTIFY tidewire if a server sleeps.';

--
-- Name: watch_signs(text[], text[], text[], bigint[], timestamp with time zone[], timestamp with time zone[], bigint); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[], seen_ats timestamp with time zone[], due_ats timestamp with time zone[], subjects_max bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _known bigint;
BEGIN
    UPDATE tidewire.watched AS o
       SET last_seen_seq = s.seq, last_seen_at = s.seen_at, due_at = greatest(o.due_at, s.due_at)
      FROM unnest(watch_signs.tenants, watch_signs.watches, watch_signs.subjects, watch_signs.seqs, watch_signs.seen_ats,
                  watch_signs.due_ats) AS s(tenant, watch, subject, seq, seen_at, due_at)
     WHERE o.tenant = s.tenant AND o.watch = s.watch AND o.subject = s.subject;
    GET DIAGNOSTICS _known = ROW_COUNT;
    IF _known = cardinality(watch_signs.subjects) THEN
        RETURN;
    END IF;
    WITH unknown AS (
        SELECT s.*, row_number() OVER (PARTITION BY s.tenant, s.watch ORDER BY s.seq) AS nth
          FROM unnest(watch_signs.tenants, watch_signs.watches, watch_signs.subjects, watch_signs.seqs, watch_signs.seen_ats,
                      watch_signs.due_ats) AS s(tenant, watch, subject, seq, seen_at, due_at)
         WHERE NOT EXISTS (SELECT FROM tidewire.watched AS o
                            WHERE o.tenant = s.tenant AND o.watch = s.watch AND o.subject = s.subject)
    ), room AS (
        SELECT u.tenant, u.watch, max(u.nth) AS wanted, watch_signs.subjects_max - (
                   SELECT count(*) FROM tidewire.watched AS o WHERE o.tenant = u.tenant AND o.watch = u.watch) AS free
          FROM unknown AS u GROUP BY u.tenant, u.watch
    ), entered AS (
        INSERT INTO tidewire.watched (tenant, watch, subject, last_seen_seq, last_seen_at, due_at)
        SELECT u.tenant, u.watch, u.subject, u.seq, u.seen_at, u.due_at
          FROM unknown AS u JOIN room AS r ON r.tenant = u.tenant AND r.watch = u.watch
         WHERE u.nth <= r.free
    ), overflowed AS (
        UPDATE tidewire.watches AS w SET overflowed_at = clock_timestamp()
          FROM room AS r
         WHERE w.tenant = r.tenant AND w.name = r.watch AND r.wanted > r.free AND w.overflowed_at IS NULL
        RETURNING w.tenant, w.name, w.topics
    )
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    SELECT f.tenant, tidewire.new_id(), 'tidewire.watch.full', 'tidewire.watch',
           jsonb_build_object('watch', f.name, 'topics', f.topics, 'subjects_max', watch_signs.subjects_max)
      FROM overflowed AS f;
END
$$;

--
-- Name: FUNCTION watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[], seen_ats timestamp with time zone[], due_ats timestamp with time zone[], subjects_max bigint); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[], seen_ats timestamp with time zone[], due_ats timestamp with time zone[], subjects_max bigint) IS 'Takes note of when watched subjects were last heard of; for the server.';

--
-- Name: watermark(); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    newest := pg_sequence_last_value('tidewire.events_seq'::regclass);
    -- A floor's low 32 bits, seen from the newest place: the highest value not above it that ends in them.
    SELECT newest - ((newest - l.objid::bigint) & 4294967295), l.pid
      INTO watermark, holder
      FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
       AND l.classid = tidewire.floor_class()::oid
       AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
     ORDER BY 1 LIMIT 1;
    watermark := coalesce(watermark, newest);
END
$$;

--
-- Name: FUNCTION watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer) IS 'The greatest seq below which no open transaction can still commit an event, the newest seq, and the backend that holds the watermark back.';

--
-- Name: withdraw_revocation(text, text, text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.withdraw_revocation(tenant text, claim text, value text, by text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('tidewire.actor', withdraw_revocation.by, true);
    DELETE FROM tidewire.revoked_tokens AS r
     WHERE r.tenant = withdraw_revocation.tenant AND r.claim = withdraw_revocation.claim AND r.value = withdraw_revocation.value;
    RETURN FOUND;
END
$$;

--
-- Name: FUNCTION withdraw_revocation(tenant text, claim text, value text, by text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.withdraw_revocation(tenant text, claim text, value text, by text) IS 'Takes back a revocation; for the server.';

--
-- Name: withdraw_topic(text, text, text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.withdraw_topic(tenant text, pattern text, by text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    PERFORM set_config('tidewire.actor', withdraw_topic.by, true);
    DELETE FROM tidewire.declared_topics AS d
     WHERE d.tenant = withdraw_topic.tenant AND d.pattern = withdraw_topic.pattern;
    RETURN FOUND;
END
$$;

--
-- Name: FUNCTION withdraw_topic(tenant text, pattern text, by text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.withdraw_topic(tenant text, pattern text, by text) IS 'Withdraws a declared topic; for the server.';

--
-- Name: writing_tenant(text); Type: FUNCTION; Schema: tidewire; Owner: -
--

CREATE FUNCTION tidewire.writing_tenant(wanted text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    _own text := tidewire.current_tenant();
BEGIN
    IF _own IS NOT NULL THEN
        IF writing_tenant.wanted <> _own THEN
            RAISE EXCEPTION 'role % writes for its own tenant only', quote_ident(session_user) USING ERRCODE = 'TW403';
        END IF;
        RETURN _own;
    END IF;
    IF tidewire.may_act_for_log() THEN
        RETURN coalesce(writing_tenant.wanted, 'dev');
    END IF;
    RAISE EXCEPTION 'role % belongs to no tenant', quote_ident(session_user)
        USING ERRCODE = 'TW403', HINT = 'Give it one: INSERT INTO tidewire.tenant_roles (role, tenant) VALUES (…).';
END
$$;

--
-- Name: FUNCTION writing_tenant(wanted text); Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON FUNCTION tidewire.writing_tenant(wanted text) IS 'The tenant that the logged-in role may write for.';

--
-- Name: api_keys; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.api_keys (
    key_id text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    role text NOT NULL,
    read_topics text[] NOT NULL,
    write_topics text[] NOT NULL,
    secret_sha256 bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text DEFAULT SESSION_USER NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    revoked_by text,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_id_is_base32 CHECK ((key_id ~ '^[0-9a-v]{16}$'::text)),
    CONSTRAINT api_keys_name_is_printable CHECK ((((octet_length(name) >= 1) AND (octet_length(name) <= 255)) AND (name !~ '[\u0001-\u001f\u007f-\u009f]'::text))),
    CONSTRAINT api_keys_revoked_by_somebody CHECK (((revoked_at IS NULL) = (revoked_by IS NULL))),
    CONSTRAINT api_keys_role_is_one CHECK ((role = ANY (ARRAY['agent'::text, 'dashboard'::text, 'analyst'::text, 'admin'::text]))),
    CONSTRAINT api_keys_secret_is_hashed CHECK ((octet_length(secret_sha256) = 32)),
    CONSTRAINT api_keys_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE api_keys; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.api_keys IS 'API keys: who may what until when. The key itself is not kept, its SHA-256 is.';

--
-- Name: COLUMN api_keys.key_id; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.api_keys.key_id IS 'The public part of the key: tw_<key_id>_<secret>.';

--
-- Name: COLUMN api_keys.last_used_at; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.api_keys.last_used_at IS 'Written once a minute at most, so as old as that.';

--
-- Name: consumers; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.consumers (
    name text NOT NULL COLLATE pg_catalog."C",
    seq bigint DEFAULT 0 NOT NULL,
    recorded_at timestamp with time zone DEFAULT to_timestamp((0)::double precision) NOT NULL,
    epoch smallint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    paused_at timestamp with time zone,
    paused_by text,
    CONSTRAINT consumers_name_is_one CHECK ((name ~ '^[a-z][a-z_]{0,62}$'::text)),
    CONSTRAINT consumers_paused_is_whole CHECK (((paused_at IS NULL) = (paused_by IS NULL)))
);

--
-- Name: TABLE consumers; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.consumers IS 'Named readers of the log and how far each has come.';

--
-- Name: COLUMN consumers.paused_at; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.consumers.paused_at IS 'Since when it takes no step, wherever it runs; null while it goes on.';

--
-- Name: COLUMN consumers.paused_by; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.consumers.paused_by IS 'Who paused it.';

--
-- Name: credential_changes; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.credential_changes (
    changed_in xid8 NOT NULL,
    change bigint NOT NULL,
    tenant text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT credential_changes_kind_is_one CHECK ((kind = ANY (ARRAY['key'::text, 'jti'::text, 'sub'::text])))
);

--
-- Name: TABLE credential_changes; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.credential_changes IS 'API keys and revocations that have changed in the last minutes: a server reads them again.';

--
-- Name: COLUMN credential_changes.changed_in; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.credential_changes.changed_in IS 'The transaction that made it.';

--
-- Name: COLUMN credential_changes.kind; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.credential_changes.kind IS 'What value is: the id of an API key, or the claim of a revocation.';

--
-- Name: credential_changes_change_seq; Type: SEQUENCE; Schema: tidewire; Owner: -
--

ALTER TABLE tidewire.credential_changes ALTER COLUMN change ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tidewire.credential_changes_change_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: declared_topics; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.declared_topics (
    tenant text NOT NULL COLLATE pg_catalog."C",
    pattern text NOT NULL COLLATE pg_catalog."C",
    schema jsonb,
    in_sql text DEFAULT 'refuse'::text NOT NULL,
    description text,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_by text DEFAULT SESSION_USER NOT NULL,
    priority tidewire.priority,
    specificity text GENERATED ALWAYS AS (replace(regexp_replace(regexp_replace((pattern || '.'::text), '[a-z0-9_-]+\.'::text, '~'::text, 'g'::text), '\*\.$'::text, ' '::text), '*.'::text, '!'::text)) STORED NOT NULL COLLATE pg_catalog."C",
    CONSTRAINT declared_topics_description_is_short CHECK ((octet_length(description) <= 4096)),
    CONSTRAINT declared_topics_in_sql_is_one CHECK ((in_sql = ANY (ARRAY['refuse'::text, 'unchecked'::text]))),
    CONSTRAINT declared_topics_pattern_is_one CHECK (((octet_length(pattern) <= 255) AND (pattern ~ '^([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*)){0,7}$'::text) AND (NOT starts_with(pattern, 'tidewire.'::text)))),
    CONSTRAINT declared_topics_schema_is_short CHECK ((octet_length((schema)::text) <= 65536)),
    CONSTRAINT declared_topics_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE declared_topics; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.declared_topics IS 'Topics that a tenant has declared, with what their data looks like.';

--
-- Name: COLUMN declared_topics.schema; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.declared_topics.schema IS 'JSON Schema of the data; the server enforces it, tidewire.append() cannot.';

--
-- Name: COLUMN declared_topics.in_sql; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.declared_topics.in_sql IS 'What tidewire.append() does with a topic that has a schema: refuse, or store it unchecked.';

--
-- Name: COLUMN declared_topics.priority; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.declared_topics.priority IS 'Of events that name none, over HTTP and with tidewire.append(); the most exact pattern counts that has one.';

--
-- Name: definitions; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.definitions (
    file text NOT NULL,
    digest text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: TABLE definitions; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.definitions IS 'Which definitions (functions, triggers, views, grants) this database has: what equals its digest is not applied again.';

--
-- Name: epochs; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.epochs (
    epoch smallint NOT NULL,
    after_seq bigint NOT NULL,
    began_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    system_identifier bigint NOT NULL,
    timeline integer NOT NULL,
    reason text NOT NULL,
    database_oid oid NOT NULL,
    events_oid oid NOT NULL,
    CONSTRAINT epochs_are_positive CHECK ((epoch > 0))
);

--
-- Name: TABLE epochs; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.epochs IS 'The lives of the log: a new row when its history may have been cut (restore, failover).';

--
-- Name: erased_ids; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.erased_ids (
    key bytea NOT NULL,
    seq bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    CONSTRAINT erased_ids_are_hashes CHECK ((octet_length(key) = 32))
);

--
-- Name: TABLE erased_ids; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.erased_ids IS 'Ids of erased events within the deduplication window, hashed: key is tidewire.erased_key(tenant, id).';

--
-- Name: erased_tenants; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.erased_tenants (
    tenant text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    through_seq bigint NOT NULL
);

--
-- Name: TABLE erased_tenants; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.erased_tenants IS 'Up to which place events of a tenant have been erased, and at which version of erasure_changes: servers forget these.';

--
-- Name: erasure_changes; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.erasure_changes (
    is_only boolean DEFAULT true NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT erasure_changes_has_one_row CHECK (is_only)
);

--
-- Name: TABLE erasure_changes; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.erasure_changes IS 'A number that rises when events are erased. One row.';

--
-- Name: erasures; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.erasures (
    tenant text NOT NULL COLLATE pg_catalog."C",
    subject_sha256 bytea NOT NULL,
    asked_by text NOT NULL,
    began_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone,
    looked_to_seq bigint DEFAULT 0 NOT NULL,
    erased bigint DEFAULT 0 NOT NULL,
    CONSTRAINT erasures_subject_is_hashed CHECK ((octet_length(subject_sha256) = 32)),
    CONSTRAINT erasures_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE erasures; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.erasures IS 'Erasures, done or under way, by the hash of the subject: tidewire.erased_key(tenant, subject).';

--
-- Name: events_clock; Type: SEQUENCE; Schema: tidewire; Owner: -
--

CREATE SEQUENCE tidewire.events_clock
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

--
-- Name: idempotency_keys; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.idempotency_keys (
    seq bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    key bytea NOT NULL
);

--
-- Name: TABLE idempotency_keys; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.idempotency_keys IS 'Ids of the deduplication window: key is tidewire.idempotency_key(tenant, id), seq and recorded_at point to the event.';

--
-- Name: my_events; Type: VIEW; Schema: tidewire; Owner: -
--

CREATE VIEW tidewire.my_events WITH (security_barrier='true') AS
 SELECT seq,
    recorded_at,
    COALESCE(occurred_at, recorded_at) AS occurred_at,
    topic,
    (subject || ''::text) AS subject,
    source,
    priority,
    id,
    region,
    gdpr,
    trace,
    data,
    bytes,
    content_type,
    erased_at
   FROM tidewire.events e
  WHERE ((tenant = ( SELECT tidewire.current_tenant() AS current_tenant)) AND (( SELECT tidewire.sees_reserved() AS sees_reserved) OR (NOT ((topic = 'tidewire'::text) OR starts_with(topic, 'tidewire.'::text)))));

--
-- Name: VIEW my_events; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON VIEW tidewire.my_events IS 'The events of the logged-in role''s tenant.';

--
-- Name: retained_tenants; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.retained_tenants (
    tenant text NOT NULL COLLATE pg_catalog."C",
    retained_seq bigint NOT NULL,
    retained_at timestamp with time zone NOT NULL
);

--
-- Name: TABLE retained_tenants; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.retained_tenants IS 'The beginning of a tenant''s events where its rules moved it beyond that of the log.';

--
-- Name: retention_turns; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.retention_turns (
    tenant text NOT NULL COLLATE pg_catalog."C",
    looked_at timestamp with time zone NOT NULL,
    CONSTRAINT retention_turns_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text))
);

--
-- Name: TABLE retention_turns; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.retention_turns IS 'When a tenant''s retention rules had their turn: whose was longest ago is next.';

--
-- Name: revoked_tokens; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.revoked_tokens (
    tenant text NOT NULL COLLATE pg_catalog."C",
    claim text NOT NULL COLLATE pg_catalog."C",
    value text NOT NULL COLLATE pg_catalog."C",
    revoked_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_by text DEFAULT SESSION_USER NOT NULL,
    until timestamp with time zone,
    CONSTRAINT revoked_tokens_claim_is_one CHECK ((claim = ANY (ARRAY['jti'::text, 'sub'::text]))),
    CONSTRAINT revoked_tokens_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT revoked_tokens_value_is_short CHECK (((octet_length(value) >= 1) AND (octet_length(value) <= 255)))
);

--
-- Name: TABLE revoked_tokens; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.revoked_tokens IS 'Tokens that ended before their time, by jti, or by sub for all that were issued until revoked_at.';

--
-- Name: schema_migrations; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.schema_migrations (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);

--
-- Name: setting_changes; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.setting_changes (
    tenant text NOT NULL COLLATE pg_catalog."C",
    change uuid NOT NULL,
    changed_in xid8 NOT NULL
);

--
-- Name: TABLE setting_changes; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.setting_changes IS 'The last change of each tenant''s settings: a server reads again what has changed since it looked.';

--
-- Name: COLUMN setting_changes.changed_in; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.setting_changes.changed_in IS 'The transaction that made it.';

--
-- Name: sql_appends; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.sql_appends (
    role text NOT NULL COLLATE pg_catalog."C",
    tenant text NOT NULL COLLATE pg_catalog."C",
    topic text NOT NULL COLLATE pg_catalog."C",
    events bigint NOT NULL,
    appended_at timestamp with time zone NOT NULL
);

--
-- Name: TABLE sql_appends; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.sql_appends IS 'Who has appended in SQL what is not yet in tidewire.audit.events.appended.';

--
-- Name: tenant_role_issues; Type: VIEW; Schema: tidewire; Owner: -
--

CREATE VIEW tidewire.tenant_role_issues AS
 WITH member AS MATERIALIZED (
         SELECT t.role,
            t.tenant,
            r.oid AS role_oid,
            m.oid,
            m.rolname AS via,
            m.rolsuper,
            m.rolbypassrls,
            m.rolreplication,
            m.rolcreaterole,
                CASE
                    WHEN (m.oid = r.oid) THEN 'it'::text
                    ELSE (('role '::text || quote_ident((m.rolname)::text)) || ', of which it is a member,'::text)
                END AS who
           FROM ((tidewire.tenant_roles t
             JOIN pg_roles r ON ((r.rolname = t.role)))
             JOIN pg_roles m ON (((m.oid = r.oid) OR ((NOT r.rolsuper) AND pg_has_role(r.oid, m.oid, 'MEMBER'::text)))))
        ), relation AS MATERIALIZED (
         SELECT c.oid,
            c.relname,
            c.relowner,
            c.relacl
           FROM pg_class c
          WHERE ((c.relnamespace = ('tidewire'::regnamespace)::oid) AND (c.relkind = ANY (ARRAY['r'::"char", 'v'::"char", 'm'::"char", 'p'::"char", 'f'::"char", 'S'::"char"])) AND (c.relname <> 'my_events'::name))
        UNION ALL
         SELECT c.oid,
            c.relname,
            c.relowner,
            c.relacl
           FROM (pg_inherits i_1
             JOIN pg_class c ON ((c.oid = i_1.inhrelid)))
          WHERE (i_1.inhparent = ('tidewire.events'::regclass)::oid)
        ), granted AS MATERIALIZED (
         SELECT x.grantee,
            ((l.oid)::regclass)::text AS what
           FROM (relation l
             CROSS JOIN LATERAL aclexplode(l.relacl) x(grantor, grantee, privilege_type, is_grantable))
          WHERE (x.grantee <> l.relowner)
        UNION
         SELECT x.grantee,
            ((l.oid)::regclass)::text AS oid
           FROM ((relation l
             JOIN pg_attribute a ON ((a.attrelid = l.oid)))
             CROSS JOIN LATERAL aclexplode(a.attacl) x(grantor, grantee, privilege_type, is_grantable))
          WHERE (x.grantee <> l.relowner)
        UNION
         SELECT x.grantee,
            ((p.oid)::regprocedure)::text AS oid
           FROM (pg_proc p
             CROSS JOIN LATERAL aclexplode(COALESCE(p.proacl, acldefault('f'::"char", p.proowner))) x(grantor, grantee, privilege_type, is_grantable))
          WHERE ((p.pronamespace = ('tidewire'::regnamespace)::oid) AND (x.grantee <> p.proowner) AND (NOT (x.grantee IN ( SELECT g.oid
                   FROM pg_roles g
                  WHERE (g.rolname = ANY (ARRAY['tidewire_analyst'::name, 'tidewire_writer'::name]))))))
        ), open_to_all AS (
         SELECT string_agg(((p.oid)::regprocedure)::text, ', '::text ORDER BY ((p.oid)::regprocedure)::text) AS what
           FROM ((pg_proc p
             JOIN pg_depend d ON (((d.classid = ('pg_proc'::regclass)::oid) AND (d.objid = p.oid) AND (d.deptype = 'e'::"char"))))
             JOIN pg_extension x ON (((x.oid = d.refobjid) AND (x.extname = 'timescaledb'::name))))
          WHERE (has_function_privilege('public'::name, p.oid, 'EXECUTE'::text) AND ((p.proname = 'drop_chunk'::name) OR ((p.proname = 'merge_chunks'::name) AND (current_setting('timescaledb.license'::text, true) = 'apache'::text))))
        ), locking AS MATERIALIZED (
         SELECT p.oid,
            p.proowner,
            p.proacl
           FROM pg_proc p
          WHERE ((p.pronamespace = ('pg_catalog'::regnamespace)::oid) AND starts_with(replace((p.proname)::text, 'try_'::text, ''::text), 'pg_advisory_'::text) AND (strpos((p.proname)::text, 'unlock'::text) = 0))
        ), issue AS (
         SELECT m.role,
            m.tenant,
            (m.who || ' is a superuser'::text) AS issue
           FROM member m
          WHERE m.rolsuper
        UNION ALL
         SELECT m.role,
            m.tenant,
            (m.who || ' has BYPASSRLS'::text)
           FROM member m
          WHERE (m.rolbypassrls AND (NOT m.rolsuper))
        UNION ALL
         SELECT m.role,
            m.tenant,
            (m.who || ' has REPLICATION, and so reads every change of the database'::text)
           FROM member m
          WHERE (m.rolreplication AND (NOT m.rolsuper))
        UNION ALL
         SELECT m.role,
            m.tenant,
            (m.who || ' has CREATEROLE, and so gives itself other roles'::text)
           FROM member m
          WHERE (m.rolcreaterole AND (NOT m.rolsuper))
        UNION ALL
         SELECT m.role,
            m.tenant,
            ('it is a member of '::text || quote_ident((m.via)::text))
           FROM member m
          WHERE (m.via = ANY (ARRAY['tidewire_loader'::name, 'tidewire_monitor'::name, 'pg_read_all_data'::name, 'pg_write_all_data'::name, 'pg_monitor'::name, 'pg_read_all_stats'::name, 'pg_stat_scan_tables'::name, 'pg_read_server_files'::name, 'pg_write_server_files'::name, 'pg_execute_server_program'::name, 'pg_signal_backend'::name, 'pg_maintain'::name, 'pg_create_subscription'::name]))
        UNION ALL
         SELECT DISTINCT m.role,
            m.tenant,
            (m.who || ' owns the log, or a part of it'::text)
           FROM member m
          WHERE ((NOT m.rolsuper) AND ((m.oid IN ( SELECT l.relowner
                   FROM relation l)) OR (m.oid = ( SELECT n.nspowner
                   FROM pg_namespace n
                  WHERE (n.nspname = 'tidewire'::name))) OR (m.oid IN ( SELECT p.proowner
                   FROM pg_proc p
                  WHERE (p.pronamespace = ('tidewire'::regnamespace)::oid)))))
        UNION ALL
         SELECT m.role,
            m.tenant,
            (m.who || ' owns the database'::text)
           FROM member m
          WHERE ((NOT m.rolsuper) AND (m.oid = ( SELECT d.datdba
                   FROM pg_database d
                  WHERE (d.datname = current_database()))))
        UNION ALL
         SELECT m.role,
            m.tenant,
            ((('it is a member of role '::text || quote_ident((o.role)::text)) || ', which belongs to tenant '::text) || o.tenant)
           FROM (member m
             JOIN tidewire.tenant_roles o ON (((o.role = m.via) AND (o.tenant <> m.tenant))))
        UNION ALL
         SELECT m.role,
            m.tenant,
            (m.who || ' may create objects in schema tidewire'::text)
           FROM member m
          WHERE ((NOT m.rolsuper) AND has_schema_privilege(m.oid, 'tidewire'::text, 'CREATE'::text))
        UNION ALL
         SELECT m.role,
            m.tenant,
            ((m.who || ' has been given '::text) || string_agg(g.what, ', '::text ORDER BY g.what))
           FROM (member m
             JOIN granted g ON ((g.grantee = m.oid)))
          WHERE ((NOT m.rolsuper) AND (m.via <> ALL (ARRAY['tidewire_loader'::name, 'tidewire_monitor'::name])))
          GROUP BY m.role, m.tenant, m.who
        UNION ALL
         SELECT m.role,
            m.tenant,
            ('PUBLIC, and so it as well, has been given '::text || string_agg(g.what, ', '::text ORDER BY g.what))
           FROM (member m
             JOIN granted g ON ((g.grantee = (0)::oid)))
          WHERE (m.oid = m.role_oid)
          GROUP BY m.role, m.tenant
        UNION ALL
         SELECT m.role,
            m.tenant,
            (((m.who || ' has been given '::text) || string_agg(((l.oid)::regprocedure)::text, ', '::text ORDER BY ((l.oid)::regprocedure)::text)) || ', and so may take the log''s advisory locks'::text)
           FROM (member m
             JOIN locking l ON ((EXISTS ( SELECT
                   FROM aclexplode(l.proacl) x(grantor, grantee, privilege_type, is_grantable)
                  WHERE ((x.grantee = m.oid) AND (x.grantee <> l.proowner))))))
          WHERE ((NOT m.rolsuper) AND (m.oid <> ( SELECT d.datdba
                   FROM pg_database d
                  WHERE (d.datname = current_database()))))
          GROUP BY m.role, m.tenant, m.who
        UNION ALL
         SELECT NULL::name,
            NULL::text,
            ('whoever may connect may take the log''s advisory locks, and so hold up retention, readers and servers: '::text || 'run sql/roles/locks.sql'::text)
          WHERE (EXISTS ( SELECT
                   FROM locking l
                  WHERE has_function_privilege('public'::name, l.oid, 'EXECUTE'::text)))
        UNION ALL
         SELECT t.role,
            t.tenant,
            'there is no such role: whoever creates one of this name gets the tenant'::text
           FROM tidewire.tenant_roles t
          WHERE (NOT (EXISTS ( SELECT
                   FROM pg_roles r
                  WHERE (r.rolname = t.role))))
        UNION ALL
         SELECT NULL::name,
            NULL::text,
            (('whoever may connect may call '::text || o.what) || ': run sql/roles/timescaledb.sql'::text)
           FROM open_to_all o
          WHERE (o.what IS NOT NULL)
        UNION ALL
         SELECT NULL::name,
            NULL::text,
            'everybody may create objects in schema public, which others may take for their own'::text
           FROM pg_namespace n
          WHERE ((n.nspname = 'public'::name) AND has_schema_privilege('public'::name, n.oid, 'CREATE'::text))
        )
 SELECT DISTINCT role,
    tenant,
    issue
   FROM issue i
  ORDER BY role, tenant, issue;

--
-- Name: VIEW tenant_role_issues; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON VIEW tidewire.tenant_role_issues IS 'Roles of tenants that could get past their tenant, a sentence each; empty where all is well.';

--
-- Name: tenant_settings; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.tenant_settings (
    tenant text NOT NULL COLLATE pg_catalog."C",
    topic_mode text DEFAULT 'open'::text NOT NULL,
    consent text DEFAULT 'optional'::text NOT NULL,
    consent_topics text[] DEFAULT '{*}'::text[] NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_by text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT tenant_settings_consent_is_one CHECK ((consent = ANY (ARRAY['optional'::text, 'withhold'::text, 'require'::text]))),
    CONSTRAINT tenant_settings_consent_topics_are_few CHECK (((cardinality(consent_topics) >= 1) AND (cardinality(consent_topics) <= 100))),
    CONSTRAINT tenant_settings_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT tenant_settings_topic_mode_is_one CHECK ((topic_mode = ANY (ARRAY['open'::text, 'declared'::text])))
);

--
-- Name: TABLE tenant_settings; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.tenant_settings IS 'What a tenant has decided: which topics may be written, and what is kept of events without consent. No row: the defaults.';

--
-- Name: COLUMN tenant_settings.topic_mode; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.tenant_settings.topic_mode IS 'open: any topic may be written; declared: those of tidewire.declared_topics alone.';

--
-- Name: COLUMN tenant_settings.consent; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.tenant_settings.consent IS 'What becomes of an event whose gdpr does not say "consent": true: optional, stored; withhold, stored without its data; require, refused.';

--
-- Name: COLUMN tenant_settings.consent_topics; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON COLUMN tidewire.tenant_settings.consent_topics IS 'To which topics that applies.';

--
-- Name: watch_changes; Type: SEQUENCE; Schema: tidewire; Owner: -
--

CREATE SEQUENCE tidewire.watch_changes
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

--
-- Name: watch_clock; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.watch_clock (
    is_only boolean DEFAULT true NOT NULL,
    looked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    blind_ms bigint DEFAULT 0 NOT NULL,
    gap_from timestamp with time zone,
    gap_to timestamp with time zone,
    CONSTRAINT watch_clock_has_one_row CHECK (is_only)
);

--
-- Name: TABLE watch_clock; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.watch_clock IS 'How long tidewire.watched was looked at by nobody. One row.';

--
-- Name: watched; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.watched (
    tenant text NOT NULL COLLATE pg_catalog."C",
    watch text NOT NULL COLLATE pg_catalog."C",
    subject text NOT NULL COLLATE pg_catalog."C",
    last_seen_seq bigint NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    is_stalled boolean DEFAULT false NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    silent_seq bigint,
    silent_at timestamp with time zone
);
ALTER TABLE ONLY tidewire.watched ALTER COLUMN subject SET STATISTICS 0;

--
-- Name: TABLE watched; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.watched IS 'Subjects of a watch: when each was last heard of, and whether it has stalled.';

--
-- Name: watches; Type: TABLE; Schema: tidewire; Owner: -
--

CREATE TABLE tidewire.watches (
    tenant text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    topics text[] NOT NULL,
    within_s integer NOT NULL,
    created_by text DEFAULT SESSION_USER NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    changed_by text DEFAULT SESSION_USER NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    since_seq bigint DEFAULT pg_sequence_last_value('tidewire.events_seq'::regclass) NOT NULL,
    since_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    overflowed_at timestamp with time zone,
    CONSTRAINT watches_name_is_one CHECK ((name ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT watches_tenant_is_a_name CHECK ((tenant ~ '^[A-Za-z0-9._-]{1,64}$'::text)),
    CONSTRAINT watches_topics_are_few CHECK (((cardinality(topics) >= 1) AND (cardinality(topics) <= 10))),
    CONSTRAINT watches_within_is_a_week_at_most CHECK (((within_s >= 1) AND (within_s <= 604800)))
);

--
-- Name: TABLE watches; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON TABLE tidewire.watches IS 'What a tenant expects to hear of each subject, and how often: tidewire.watched says of whom it is heard.';

--
-- Name: writers; Type: VIEW; Schema: tidewire; Owner: -
--

CREATE VIEW tidewire.writers AS
 SELECT l.pid,
    a.application_name,
    a.usename AS role,
    a.state,
    a.xact_start AS began_at,
    a.wait_event,
    (n.newest - ((n.newest - (l.objid)::bigint) & '4294967295'::bigint)) AS floor
   FROM ((pg_locks l
     CROSS JOIN LATERAL ( SELECT pg_sequence_last_value('tidewire.events_seq'::regclass) AS newest) n)
     LEFT JOIN pg_stat_activity a ON ((a.pid = l.pid)))
  WHERE ((l.locktype = 'advisory'::text) AND (l.objsubid = 2) AND l.granted AND (l.classid = (tidewire.floor_class())::oid) AND (l.database = ( SELECT d.oid
           FROM pg_database d
          WHERE (d.datname = current_database()))))
  ORDER BY (n.newest - ((n.newest - (l.objid)::bigint) & '4294967295'::bigint));

--
-- Name: VIEW writers; Type: COMMENT; Schema: tidewire; Owner: -
--

COMMENT ON VIEW tidewire.writers IS 'Open transactions that have written events; readers stop below the lowest floor.';

--
-- Name: api_keys api_keys_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (key_id);

--
-- Name: consumers consumers_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.consumers
    ADD CONSTRAINT consumers_pkey PRIMARY KEY (name);

--
-- Name: credential_changes credential_changes_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.credential_changes
    ADD CONSTRAINT credential_changes_pkey PRIMARY KEY (changed_in, change);

--
-- Name: declared_topics declared_topics_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.declared_topics
    ADD CONSTRAINT declared_topics_pkey PRIMARY KEY (tenant, pattern);

--
-- Name: definitions definitions_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.definitions
    ADD CONSTRAINT definitions_pkey PRIMARY KEY (file);

--
-- Name: epochs epochs_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.epochs
    ADD CONSTRAINT epochs_pkey PRIMARY KEY (epoch);

--
-- Name: erased_ids erased_ids_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.erased_ids
    ADD CONSTRAINT erased_ids_pkey PRIMARY KEY (key);

--
-- Name: erased_tenants erased_tenants_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.erased_tenants
    ADD CONSTRAINT erased_tenants_pkey PRIMARY KEY (tenant);

--
-- Name: erasure_changes erasure_changes_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.erasure_changes
    ADD CONSTRAINT erasure_changes_pkey PRIMARY KEY (is_only);

--
-- Name: erasures erasures_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.erasures
    ADD CONSTRAINT erasures_pkey PRIMARY KEY (tenant, subject_sha256);

--
-- Name: idempotency_keys event_id_is_unique; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.idempotency_keys
    ADD CONSTRAINT event_id_is_unique PRIMARY KEY (key);

--
-- Name: log log_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (is_only);

--
-- Name: retained_tenants retained_tenants_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.retained_tenants
    ADD CONSTRAINT retained_tenants_pkey PRIMARY KEY (tenant);

--
-- Name: retention_rules retention_rules_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.retention_rules
    ADD CONSTRAINT retention_rules_pkey PRIMARY KEY (tenant, pattern);

--
-- Name: retention_turns retention_turns_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.retention_turns
    ADD CONSTRAINT retention_turns_pkey PRIMARY KEY (tenant);

--
-- Name: revoked_tokens revoked_tokens_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.revoked_tokens
    ADD CONSTRAINT revoked_tokens_pkey PRIMARY KEY (tenant, claim, value);

--
-- Name: schema_migrations schema_migrations_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

--
-- Name: setting_changes setting_changes_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.setting_changes
    ADD CONSTRAINT setting_changes_pkey PRIMARY KEY (tenant);

--
-- Name: tenant_roles tenant_roles_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.tenant_roles
    ADD CONSTRAINT tenant_roles_pkey PRIMARY KEY (role);

--
-- Name: tenant_settings tenant_settings_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.tenant_settings
    ADD CONSTRAINT tenant_settings_pkey PRIMARY KEY (tenant);

--
-- Name: watch_clock watch_clock_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.watch_clock
    ADD CONSTRAINT watch_clock_pkey PRIMARY KEY (is_only);

--
-- Name: watched watched_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.watched
    ADD CONSTRAINT watched_pkey PRIMARY KEY (tenant, watch, subject);

--
-- Name: watches watches_pkey; Type: CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.watches
    ADD CONSTRAINT watches_pkey PRIMARY KEY (tenant, name);

--
-- Name: api_keys_by_end; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX api_keys_by_end ON tidewire.api_keys USING btree (LEAST(revoked_at, expires_at)) WHERE (LEAST(revoked_at, expires_at) IS NOT NULL);

--
-- Name: api_keys_by_name; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX api_keys_by_name ON tidewire.api_keys USING btree (tenant, name, key_id);

--
-- Name: api_keys_by_tenant; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX api_keys_by_tenant ON tidewire.api_keys USING btree (tenant, key_id);

--
-- Name: api_keys_in_force; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX api_keys_in_force ON tidewire.api_keys USING btree (tenant, COALESCE(expires_at, 'infinity'::timestamp with time zone)) WHERE (revoked_at IS NULL);

--
-- Name: erased_tenants_by_version; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX erased_tenants_by_version ON tidewire.erased_tenants USING btree (version);

--
-- Name: events_by_seq; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX events_by_seq ON tidewire.events USING btree (seq);

--
-- Name: events_by_subject; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX events_by_subject ON tidewire.events USING btree (tenant, subject, seq) WHERE (subject IS NOT NULL);

--
-- Name: events_by_tenant; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX events_by_tenant ON tidewire.events USING btree (tenant, seq);

--
-- Name: events_by_time; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX events_by_time ON tidewire.events USING brin (recorded_at) WITH (pages_per_range='32', autosummarize='on');

--
-- Name: idempotency_keys_by_time; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX idempotency_keys_by_time ON tidewire.idempotency_keys USING brin (recorded_at) WITH (autosummarize='on');

--
-- Name: revoked_tokens_by_end; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX revoked_tokens_by_end ON tidewire.revoked_tokens USING btree (until) WHERE (until IS NOT NULL);

--
-- Name: setting_changes_by_transaction; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX setting_changes_by_transaction ON tidewire.setting_changes USING btree (changed_in);

--
-- Name: watched_by_due; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX watched_by_due ON tidewire.watched USING btree (due_at) WHERE (NOT is_stalled);

--
-- Name: watched_stalled; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX watched_stalled ON tidewire.watched USING btree (tenant, watch, subject) WHERE is_stalled;

--
-- Name: watched_with_a_sign; Type: INDEX; Schema: tidewire; Owner: -
--

CREATE INDEX watched_with_a_sign ON tidewire.watched USING btree (tenant, watch, subject) WHERE (is_stalled AND (last_seen_seq > silent_seq));

--
-- Name: api_keys api_keys_announce_change; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER api_keys_announce_change AFTER DELETE OR UPDATE OF key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at ON tidewire.api_keys FOR EACH ROW EXECUTE FUNCTION tidewire.announce_credential_change();

--
-- Name: api_keys api_keys_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER api_keys_not_truncated BEFORE TRUNCATE ON tidewire.api_keys FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: api_keys api_keys_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER api_keys_record AFTER INSERT OR DELETE OR UPDATE OF key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at ON tidewire.api_keys FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();

--
-- Name: declared_topics declared_topics_announce_change; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER declared_topics_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();

--
-- Name: declared_topics declared_topics_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER declared_topics_not_truncated BEFORE TRUNCATE ON tidewire.declared_topics FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: declared_topics declared_topics_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER declared_topics_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();

--
-- Name: events events_append_only; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER events_append_only BEFORE DELETE OR UPDATE ON tidewire.events FOR EACH ROW EXECUTE FUNCTION tidewire.refuse_change();

--
-- Name: events events_claim_floor; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER events_claim_floor BEFORE INSERT ON tidewire.events FOR EACH STATEMENT EXECUTE FUNCTION tidewire.claim_floor();

--
-- Name: events events_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER events_not_truncated BEFORE TRUNCATE ON tidewire.events FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_change();

--
-- Name: events events_record_append; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER events_record_append AFTER INSERT ON tidewire.events REFERENCING NEW TABLE AS appended FOR EACH STATEMENT EXECUTE FUNCTION tidewire.record_append();

--
-- Name: retention_rules retention_rules_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER retention_rules_not_truncated BEFORE TRUNCATE ON tidewire.retention_rules FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: retention_rules retention_rules_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER retention_rules_record AFTER INSERT OR DELETE OR UPDATE OF tenant, pattern, days ON tidewire.retention_rules FOR EACH ROW EXECUTE FUNCTION tidewire.record_retention_rule();

--
-- Name: revoked_tokens revoked_tokens_announce_change; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER revoked_tokens_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.revoked_tokens FOR EACH ROW EXECUTE FUNCTION tidewire.announce_credential_change();

--
-- Name: revoked_tokens revoked_tokens_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER revoked_tokens_not_truncated BEFORE TRUNCATE ON tidewire.revoked_tokens FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: revoked_tokens revoked_tokens_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER revoked_tokens_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.revoked_tokens FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();

--
-- Name: tenant_roles tenant_roles_are_held; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_roles_are_held AFTER INSERT OR UPDATE ON tidewire.tenant_roles FOR EACH ROW EXECUTE FUNCTION tidewire.refuse_strong_role();

--
-- Name: tenant_roles tenant_roles_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_roles_not_truncated BEFORE TRUNCATE ON tidewire.tenant_roles FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: tenant_roles tenant_roles_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_roles_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_roles FOR EACH ROW EXECUTE FUNCTION tidewire.record_tenant_role();

--
-- Name: tenant_settings tenant_settings_announce_change; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_settings_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();

--
-- Name: tenant_settings tenant_settings_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_settings_not_truncated BEFORE TRUNCATE ON tidewire.tenant_settings FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: tenant_settings tenant_settings_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER tenant_settings_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();

--
-- Name: events ts_insert_blocker; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER ts_insert_blocker BEFORE INSERT ON tidewire.events FOR EACH ROW EXECUTE FUNCTION _timescaledb_functions.insert_blocker();

--
-- Name: watches watches_are_claimed; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER watches_are_claimed BEFORE INSERT OR DELETE OR UPDATE OF tenant, name, topics, within_s ON tidewire.watches FOR EACH STATEMENT EXECUTE FUNCTION tidewire.claim_watches();

--
-- Name: watches watches_not_truncated; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER watches_not_truncated BEFORE TRUNCATE ON tidewire.watches FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();

--
-- Name: watches watches_record; Type: TRIGGER; Schema: tidewire; Owner: -
--

CREATE TRIGGER watches_record AFTER INSERT OR DELETE OR UPDATE OF tenant, name, topics, within_s ON tidewire.watches FOR EACH ROW EXECUTE FUNCTION tidewire.record_watch();

--
-- Name: watched watched_belongs_to_a_watch; Type: FK CONSTRAINT; Schema: tidewire; Owner: -
--

ALTER TABLE ONLY tidewire.watched
    ADD CONSTRAINT watched_belongs_to_a_watch FOREIGN KEY (tenant, watch) REFERENCES tidewire.watches(tenant, name) ON DELETE CASCADE;

--
-- Name: SCHEMA tidewire; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA tidewire TO tidewire_writer;
GRANT USAGE ON SCHEMA tidewire TO tidewire_loader;
GRANT USAGE ON SCHEMA tidewire TO tidewire_analyst;
GRANT USAGE ON SCHEMA tidewire TO tidewire_monitor;

--
-- Name: FUNCTION announce_credential_change(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.announce_credential_change() FROM PUBLIC;

--
-- Name: FUNCTION announce_setting_change(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.announce_setting_change() FROM PUBLIC;

--
-- Name: FUNCTION append(topic text, data jsonb, subject text, id text, source text, priority text, occurred_at timestamp with time zone, region text, gdpr jsonb, trace text, bytes bytea, content_type text, expect text, tenant text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.append(topic text, data jsonb, subject text, id text, source text, priority text, occurred_at timestamp with time zone, region text, gdpr jsonb, trace text, bytes bytea, content_type text, expect text, tenant text) FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.append(topic text, data jsonb, subject text, id text, source text, priority text, occurred_at timestamp with time zone, region text, gdpr jsonb, trace text, bytes bytea, content_type text, expect text, tenant text) TO tidewire_writer;

--
-- Name: FUNCTION append_many(tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[], occurred_ats timestamp with time zone[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[], content_types text[], group_nos integer[], expected_seqs bigint[]); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.append_many(tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[], occurred_ats timestamp with time zone[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[], content_types text[], group_nos integer[], expected_seqs bigint[]) FROM PUBLIC;

--
-- Name: FUNCTION apply_retention(row_limit integer, round_at timestamp with time zone); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.apply_retention(row_limit integer, round_at timestamp with time zone) FROM PUBLIC;

--
-- Name: FUNCTION begin_epoch(reason text, force boolean); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.begin_epoch(reason text, force boolean) FROM PUBLIC;

--
-- Name: FUNCTION check_admission(tenant text, topic text, gdpr jsonb); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.check_admission(tenant text, topic text, gdpr jsonb) FROM PUBLIC;

--
-- Name: FUNCTION claim_floor(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.claim_floor() FROM PUBLIC;

--
-- Name: FUNCTION claim_watches(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.claim_watches() FROM PUBLIC;

--
-- Name: FUNCTION close_chunks(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.close_chunks() FROM PUBLIC;

--
-- Name: FUNCTION create_tenant_role(role text, tenant text, may_write boolean, is_admin boolean, verifier text, connections integer); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.create_tenant_role(role text, tenant text, may_write boolean, is_admin boolean, verifier text, connections integer) FROM PUBLIC;

--
-- Name: FUNCTION current_tenant(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.current_tenant() FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.current_tenant() TO tidewire_writer;
GRANT ALL ON FUNCTION tidewire.current_tenant() TO tidewire_analyst;

--
-- Name: FUNCTION cursor(seq bigint, recorded_at timestamp with time zone); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.cursor(seq bigint, recorded_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.cursor(seq bigint, recorded_at timestamp with time zone) TO tidewire_analyst;

--
-- Name: FUNCTION cursor_seq(cursor text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.cursor_seq(cursor text) FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.cursor_seq(cursor text) TO tidewire_writer;
GRANT ALL ON FUNCTION tidewire.cursor_seq(cursor text) TO tidewire_analyst;

--
-- Name: FUNCTION default_priority(tenant text, topic text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.default_priority(tenant text, topic text) FROM PUBLIC;

--
-- Name: FUNCTION drop_tenant_role(role text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.drop_tenant_role(role text) FROM PUBLIC;

--
-- Name: FUNCTION erase_subject(tenant text, subject text, actor text, row_limit integer, look_limit integer); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.erase_subject(tenant text, subject text, actor text, row_limit integer, look_limit integer) FROM PUBLIC;

--
-- Name: TABLE log; Type: ACL; Schema: tidewire; Owner: -
--

GRANT SELECT ON TABLE tidewire.log TO tidewire_monitor;

--
-- Name: FUNCTION erased_key(tenant text, name text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.erased_key(tenant text, name text) FROM PUBLIC;

--
-- Name: FUNCTION expire_keys(row_limit integer); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.expire_keys(row_limit integer) FROM PUBLIC;

--
-- Name: FUNCTION find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamp with time zone, row_limit bigint, bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamp with time zone, OUT latest timestamp with time zone, OUT bytes bigint, OUT young_at timestamp with time zone); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamp with time zone, row_limit bigint, bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamp with time zone, OUT latest timestamp with time zone, OUT bytes bigint, OUT young_at timestamp with time zone) FROM PUBLIC;

--
-- Name: FUNCTION floor_class(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.floor_class() FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.floor_class() TO tidewire_monitor;

--
-- Name: FUNCTION forget_samples(subject text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.forget_samples(subject text) FROM PUBLIC;

--
-- Name: FUNCTION has_short_writer(below bigint); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.has_short_writer(below bigint) FROM PUBLIC;

--
-- Name: FUNCTION idempotency_key(tenant text, id text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.idempotency_key(tenant text, id text) FROM PUBLIC;

--
-- Name: FUNCTION is_reserved(topic text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.is_reserved(topic text) FROM PUBLIC;

--
-- Name: FUNCTION judge_watched(tenants text[], watches text[], subjects text[], verdicts text[], due_ats timestamp with time zone[]); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.judge_watched(tenants text[], watches text[], subjects text[], verdicts text[], due_ats timestamp with time zone[]) FROM PUBLIC;

--
-- Name: FUNCTION lost_by_rules(chunk regclass, tenants text[]); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.lost_by_rules(chunk regclass, tenants text[]) FROM PUBLIC;

--
-- Name: SEQUENCE events_seq; Type: ACL; Schema: tidewire; Owner: -
--

GRANT USAGE ON SEQUENCE tidewire.events_seq TO tidewire_loader;
GRANT SELECT ON SEQUENCE tidewire.events_seq TO tidewire_monitor;

--
-- Name: COLUMN events.occurred_at; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(occurred_at) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.priority; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(priority) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.tenant; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(tenant) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.id; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(id) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.topic; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(topic) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.subject; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(subject) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.source; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(source) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.region; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(region) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.trace; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(trace) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.content_type; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(content_type) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.gdpr; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(gdpr) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.data; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(data) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: COLUMN events.bytes; Type: ACL; Schema: tidewire; Owner: -
--

GRANT INSERT(bytes) ON TABLE tidewire.events TO tidewire_loader;

--
-- Name: FUNCTION may_act_for_log(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.may_act_for_log() FROM PUBLIC;

--
-- Name: FUNCTION my_subject(of_subject text, after_seq bigint); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.my_subject(of_subject text, after_seq bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.my_subject(of_subject text, after_seq bigint) TO tidewire_analyst;

--
-- Name: FUNCTION new_id(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.new_id() FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.new_id() TO tidewire_loader;

--
-- Name: FUNCTION prepare_chunks(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.prepare_chunks() FROM PUBLIC;

--
-- Name: FUNCTION record_append(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_append() FROM PUBLIC;

--
-- Name: FUNCTION record_credential(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_credential() FROM PUBLIC;

--
-- Name: FUNCTION record_retention_rule(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_retention_rule() FROM PUBLIC;

--
-- Name: FUNCTION record_setting(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_setting() FROM PUBLIC;

--
-- Name: FUNCTION record_sql_appends(row_limit integer, is_written boolean); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_sql_appends(row_limit integer, is_written boolean) FROM PUBLIC;

--
-- Name: FUNCTION record_subject_read(tenant text, subject text, actor text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_subject_read(tenant text, subject text, actor text) FROM PUBLIC;

--
-- Name: FUNCTION record_tenant_role(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_tenant_role() FROM PUBLIC;

--
-- Name: FUNCTION record_watch(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.record_watch() FROM PUBLIC;

--
-- Name: FUNCTION redact(tenant text, seqs bigint[], recorded_from timestamp with time zone, recorded_to timestamp with time zone, person text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.redact(tenant text, seqs bigint[], recorded_from timestamp with time zone, recorded_to timestamp with time zone, person text) FROM PUBLIC;

--
-- Name: FUNCTION refuse_change(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.refuse_change() FROM PUBLIC;

--
-- Name: FUNCTION refuse_strong_role(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.refuse_strong_role() FROM PUBLIC;

--
-- Name: FUNCTION refuse_truncate(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.refuse_truncate() FROM PUBLIC;

--
-- Name: FUNCTION retain(keep interval); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.retain(keep interval) FROM PUBLIC;

--
-- Name: FUNCTION retain_by_rules(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.retain_by_rules() FROM PUBLIC;

--
-- Name: FUNCTION retain_oldest(keep interval); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.retain_oldest(keep interval) FROM PUBLIC;

--
-- Name: FUNCTION rules_by_topic(tenant text, topics text[]); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.rules_by_topic(tenant text, topics text[]) FROM PUBLIC;

--
-- Name: FUNCTION rules_of(tenants text[]); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.rules_of(tenants text[]) FROM PUBLIC;

--
-- Name: FUNCTION sees_reserved(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.sees_reserved() FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.sees_reserved() TO tidewire_analyst;

--
-- Name: FUNCTION topic_matches(topic text, pattern text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.topic_matches(topic text, pattern text) FROM PUBLIC;

--
-- Name: FUNCTION undue_locks(class integer, key integer); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.undue_locks(class integer, key integer) FROM PUBLIC;

--
-- Name: FUNCTION users_of(relation regclass); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.users_of(relation regclass) FROM PUBLIC;

--
-- Name: FUNCTION wake_servers(); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.wake_servers() FROM PUBLIC;

--
-- Name: FUNCTION watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[], seen_ats timestamp with time zone[], due_ats timestamp with time zone[], subjects_max bigint); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[], seen_ats timestamp with time zone[], due_ats timestamp with time zone[], subjects_max bigint) FROM PUBLIC;

--
-- Name: FUNCTION watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer) FROM PUBLIC;
GRANT ALL ON FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer) TO tidewire_monitor;

--
-- Name: FUNCTION withdraw_revocation(tenant text, claim text, value text, by text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.withdraw_revocation(tenant text, claim text, value text, by text) FROM PUBLIC;

--
-- Name: FUNCTION withdraw_topic(tenant text, pattern text, by text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.withdraw_topic(tenant text, pattern text, by text) FROM PUBLIC;

--
-- Name: FUNCTION writing_tenant(wanted text); Type: ACL; Schema: tidewire; Owner: -
--

REVOKE ALL ON FUNCTION tidewire.writing_tenant(wanted text) FROM PUBLIC;

--
-- Name: TABLE epochs; Type: ACL; Schema: tidewire; Owner: -
--

GRANT SELECT ON TABLE tidewire.epochs TO tidewire_monitor;

--
-- Name: TABLE my_events; Type: ACL; Schema: tidewire; Owner: -
--

GRANT SELECT ON TABLE tidewire.my_events TO tidewire_analyst;

--
-- Name: TABLE writers; Type: ACL; Schema: tidewire; Owner: -
--

GRANT SELECT ON TABLE tidewire.writers TO tidewire_monitor;

--
-- PostgreSQL database dump complete
--

