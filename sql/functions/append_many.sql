-- Appends a batch in one transaction and says of each member what became of it. The server and tidewire.append() use
-- it; its arrays run parallel, one place a member.
--
-- group_nos: members of one group are stored together or not at all. Ascending.
-- expected_seqs: NULL no expectation · 0 the subject has no event yet · else the seq of its newest event.
--
-- outcome: stored · duplicate (same id, same content: seq and recorded_at are the first time's) · id_conflict (same id,
-- other content) · expect_conflict (seq and recorded_at are the subject's newest event, NULL if none) · skipped (a
-- group-mate failed).
--
-- Locks: a floor, as every writer; one advisory lock for each subject with an expectation, so that of two writers that
-- expect the same event one sees the other's.
-- A writer without an expectation takes no such lock. The short transactions that were under way when an expecting event
-- got its place are waited for, since they may hold a lower one; one that has been open for longer is not.
-- Refuses: 40001 when one of these did store an event of the subject: try again, it is found then · 23505 event_id_is_unique when another transaction stored one of the ids meanwhile: try again, it is found then.
CREATE OR REPLACE FUNCTION tidewire.append_many(
    tenants text[], ids text[], topics text[], subjects text[], sources text[], priorities text[],
    occurred_ats timestamptz[], regions text[], gdprs text[], traces text[], datas text[], bytess bytea[],
    content_types text[], group_nos integer[], expected_seqs bigint[])
RETURNS TABLE (seq bigint, recorded_at timestamptz, outcome text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.append_many(text[], text[], text[], text[], text[], text[], timestamptz[], text[], text[],
    text[], text[], bytea[], text[], integer[], bigint[]) IS
    'Appends a batch, group by group all or nothing; for the server. Applications call tidewire.append().';
