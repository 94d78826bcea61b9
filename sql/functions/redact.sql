-- Empties events of a tenant, in their places: seq, recorded_at, tenant, topic and priority stay, all else goes, and the id
-- is another. Returns how many. The one place that changes a row of the log; whoever calls it has raised the version of
-- tidewire.erasure_changes, so that there is one at a time.
--
-- person: what is about somebody else and was only produced by this person keeps what it says; its source and its trace go,
-- and its id where the name stands in it. Of what the log itself wrote about the person, who did it stays.
--
-- Chunk by chunk: an UPDATE of the hypertable locks all of its chunks, and who holds one of them would hold up everybody's.
--
-- The ids' keys move to tidewire.erased_ids: a retry of an erased event is answered as a duplicate.
CREATE OR REPLACE FUNCTION tidewire.redact(tenant text, seqs bigint[], recorded_from timestamptz, recorded_to timestamptz,
    person text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.redact(text, bigint[], timestamptz, timestamptz, text) IS
    'Empties events in their places; for tidewire.erase_subject() and tidewire.apply_retention().';
