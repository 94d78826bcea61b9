-- Takes note of signs of life. Its arrays run parallel, one place a subject of a watch, the newest sign of each.
--
-- A subject that is new is watched from now on, as long as its watch has fewer than subjects_max. Where one finds no place, the
-- watch's overflowed_at says so, and tidewire.watch.full in the tenant's log, once until the watch's topics change. Whoever calls
-- it holds 1953064041.
CREATE OR REPLACE FUNCTION tidewire.watch_signs(tenants text[], watches text[], subjects text[], seqs bigint[],
    seen_ats timestamptz[], due_ats timestamptz[], subjects_max bigint)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.watch_signs(text[], text[], text[], bigint[], timestamptz[], timestamptz[], bigint) IS
    'Takes note of when watched subjects were last heard of; for the server.';
