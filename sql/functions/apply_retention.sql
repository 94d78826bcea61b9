-- Empties a batch of events that tenants' rules keep no longer, in their places: row_limit events looked at a call, and 32 MB of
-- data as it is stored, or the event that goes beyond. Returns how many, and whether there is nothing left to look at for now;
-- where another session does it, or removes a chunk, for half a second, that is so as well, and a NOTICE says so.
--
-- Where a tenant's batch fails or takes too long (statement_timeout), the call ends and is_complete is NULL; a WARNING says whose
-- and why. What it has done before stays done, and that tenant and that rule have had their turn: others are first in the next.
-- Where somebody holds a tenant's rows or a chunk of its events for half a second it is said likewise, and the call goes on with the
-- next tenant. An erasure holds up all of them: the call ends, with what it has done.
--
-- Tenants take turns, and so do a tenant's rules: whose turn was longest ago is first, and whoever uses up a call is last in the
-- next. round_at: when the round began, by this clock; what has been gone through since then is not looked at again, and a
-- call ends after a second, so that no number of rules makes it too long: with a year of chunks the two plans of a rule take
-- some 50 ms. Nor is a rule looked at before the event comes of age at which it ended, or for six hours if there was none.
-- Without round_at: all are looked at, however long that takes.
--
-- Of the rules that stand for a topic the most exact counts. A rule goes through the tenant's events in their order and
-- remembers how far it came, at most up to the watermark, so that nobody can commit an event behind it. It stops at the
-- first that is younger than its days (of 24 hours each). What it has passed stays passed however its days change: all of it
-- was due then, or is another's (see tidewire.record_retention_rule()).
--
-- Waits for nobody who changes a rule: such a tenant is looked at in a later call. Who changes rules of a tenant that was looked
-- at waits for the end of the call, so that none is answered as set whose events go nevertheless. Hence it ends after a second
-- without round_at as well, once it has emptied anything.
--
-- At its end it writes tidewire.audit.retention.applied into the log of each tenant, for each rule that has emptied any.
--
-- Locks, in the order of tidewire.retain_by_rules(): the rules, the version of erasures.
-- Refuses: TW400 a transaction that does not see what is committed · 55P03 who holds all rules for half a second (LOCK TABLE).
CREATE OR REPLACE FUNCTION tidewire.apply_retention(row_limit integer DEFAULT 5000, round_at timestamptz DEFAULT NULL)
RETURNS TABLE (removed bigint, is_complete boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
#variable_conflict use_column
DECLARE
    _bytes_max CONSTANT bigint := 32 * 1024 * 1024;
    _watermark bigint;
    _began     timestamptz := clock_timestamp();
    _round     timestamptz := coalesce(apply_retention.round_at, _began);
    _rested    timestamptz := CASE WHEN apply_retention.round_at IS NULL THEN 'infinity' ELSE _began - interval '6 hours' END;
    _is_over   boolean := false;
    _tenant    text;
    _rule      tidewire.retention_rules;
    _cutoff    timestamptz;
    _stop      bigint;
    _young_at  timestamptz;
    _found     record;
    _room      bigint;
    _room_bytes bigint;
    _bytes     bigint := 0;
    _is_ours   boolean;
    _is_held   boolean := false;
    _failure   text;
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
        RAISE NOTICE 'another session applies tenants'' rules: they are left to it';
        RETURN QUERY SELECT 0::bigint, true;
        RETURN;
    END;
    -- What is written into it below, before the version of erasures.
    LOCK TABLE tidewire.retention_rules IN ROW EXCLUSIVE MODE;
    -- Before the events are read: whoever is not seen here takes a place above it.
    SELECT w.watermark INTO _watermark FROM tidewire.watermark() AS w;
    <<turns>>
    FOR _tenant IN
        SELECT r.tenant FROM tidewire.retention_rules AS r LEFT JOIN tidewire.retention_turns AS t ON t.tenant = r.tenant
         WHERE r.through_at IS NULL
            OR r.through_at < _round AND (r.through_at < _rested OR r.young_at < _began - r.days * interval '24 hours')
         GROUP BY r.tenant, t.looked_at ORDER BY t.looked_at NULLS FIRST, r.tenant
    LOOP
        -- Before the tenant's rules are read, until the end: as whoever changes them does (tidewire.record_retention_rule()).
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(1953064033, hashtext(_tenant));
        INSERT INTO tidewire.retention_turns AS t (tenant, looked_at) VALUES (_tenant, clock_timestamp())
            ON CONFLICT (tenant) DO UPDATE SET looked_at = excluded.looked_at;
        FOR _rule IN
            SELECT r.* FROM tidewire.retention_rules AS r
             WHERE r.tenant = _tenant AND (r.through_at IS NULL
                OR r.through_at < _round AND (r.through_at < _rested OR r.young_at < _began - r.days * interval '24 hours'))
             ORDER BY r.looked_at, r.pattern FOR NO KEY UPDATE SKIP LOCKED
        LOOP
            _cutoff := clock_timestamp() - _rule.days * interval '24 hours';
            _room := apply_retention.row_limit - _looked;
            _room_bytes := _bytes_max - _bytes;
            _emptied := 0;
            _found := NULL;
            _is_ours := true;
            BEGIN
                SELECT e.seq, e.recorded_at INTO _stop, _young_at FROM tidewire.events AS e
                 WHERE e.tenant = _rule.tenant AND e.seq > _rule.applied_seq AND e.recorded_at >= _cutoff ORDER BY e.seq LIMIT 1;
                WITH looked AS MATERIALIZED (
                    SELECT e.seq, e.recorded_at, e.bytes,
                           e.erased_at IS NULL AND e.topic ~ _rule.topic_regex
                           AND (_rule.is_reserved OR NOT starts_with(e.topic, 'tidewire.'))
                           AND NOT EXISTS (
                               SELECT FROM tidewire.retention_rules AS o
                                WHERE o.tenant = _rule.tenant AND o.specificity > _rule.specificity AND e.topic ~ o.topic_regex
                                  AND (o.is_reserved OR NOT starts_with(e.topic, 'tidewire.'))) AS is_due
                      FROM (SELECT s.seq, s.recorded_at, s.topic, s.erased_at,
                                   coalesce(pg_column_size(s.data), 0) + coalesce(pg_column_size(s.bytes), 0) AS bytes
                              FROM tidewire.events AS s
                             WHERE s.tenant = _rule.tenant AND s.seq > _rule.applied_seq AND s.seq <= _watermark
                               AND s.seq < coalesce(_stop, _watermark + 1) AND s.recorded_at < _cutoff
                             ORDER BY s.seq LIMIT _room) AS e
                ), weighed AS (
                    SELECT d.*, coalesce(sum(d.bytes) FILTER (WHERE d.is_due) OVER (
                               ORDER BY d.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
                      FROM looked AS d
                )
                SELECT count(*) AS looked, max(l.seq) AS looked_to, array_agg(l.seq) FILTER (WHERE l.is_due) AS seqs,
                       min(l.recorded_at) FILTER (WHERE l.is_due) AS earliest,
                       max(l.recorded_at) FILTER (WHERE l.is_due) AS latest,
                       coalesce(sum(l.bytes) FILTER (WHERE l.is_due), 0) AS bytes
                  INTO _found FROM weighed AS l WHERE l.bytes_before < _room_bytes;
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
                    _failure := SQLERRM;
            END;
            IF _failure IS NOT NULL THEN
                RAISE WARNING 'retention of tenant % by its rule % has failed: %', _rule.tenant, _rule.pattern, _failure;
                UPDATE tidewire.retention_rules AS r SET looked_at = clock_timestamp()
                 WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
                EXIT turns;
            END IF;
            UPDATE tidewire.retention_rules AS r
               SET applied_seq = coalesce(_found.looked_to, r.applied_seq), removed = r.removed + _emptied,
                   removed_at = CASE WHEN _emptied > 0 THEN clock_timestamp() ELSE r.removed_at END,
                   looked_at = clock_timestamp(), young_at = _young_at,
                   through_at = CASE WHEN _found.looked < _room AND _found.bytes < _room_bytes THEN clock_timestamp() END
             WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
            _removed := _removed + _emptied;
            IF _emptied > 0 THEN
                _applied := _applied || jsonb_build_object('tenant', _rule.tenant,
                    'said', jsonb_build_object('pattern', _rule.pattern, 'days', _rule.days, 'events', _emptied));
            END IF;
            _looked := _looked + _found.looked;
            _bytes := _bytes + _found.bytes;
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
    RETURN QUERY SELECT _removed, CASE WHEN _failure IS NULL AND NOT _is_held THEN NOT _is_over END;
END
$fn$;
COMMENT ON FUNCTION tidewire.apply_retention(integer, timestamptz) IS
    'Empties a batch of events that tenants'' rules keep no longer; call it until is_complete.';
