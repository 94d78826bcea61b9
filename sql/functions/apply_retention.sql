-- Empties a batch of events that tenants' rules keep no longer, in their places, row_limit events looked at a call. Returns how
-- many, and whether there is nothing left to look at for now; where another session does it, that is so as well.
--
-- Of the rules that stand for a topic the most exact counts. A rule goes through the tenant's events in their order and
-- remembers how far it came, at most up to the watermark, so that nobody can commit an event behind it. It stops at the
-- first that is younger than its days (of 24 hours each).
--
-- Refuses: TW400 a transaction that does not see what is committed · 55P03 an erasure for half a second.
CREATE OR REPLACE FUNCTION tidewire.apply_retention(row_limit integer DEFAULT 5000)
RETURNS TABLE (removed bigint, is_complete boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
#variable_conflict use_column
DECLARE
    _watermark bigint;
    _rule      tidewire.retention_rules;
    _cutoff    timestamptz;
    _stop      bigint;
    _found     record;
    _looked    bigint := 0;
    _removed   bigint := 0;
    _emptied   bigint;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'retention needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    IF NOT EXISTS (SELECT FROM tidewire.retention_rules) OR NOT pg_try_advisory_xact_lock(1953064034, 1) THEN
        RETURN QUERY SELECT 0::bigint, true;
        RETURN;
    END IF;
    -- Before the events are read: whoever is not seen here takes a place above it.
    SELECT w.watermark INTO _watermark FROM tidewire.watermark() AS w;
    FOR _rule IN SELECT r.* FROM tidewire.retention_rules AS r ORDER BY r.tenant, r.pattern LOOP
        _cutoff := clock_timestamp() - _rule.days * interval '24 hours';
        SELECT min(e.seq) INTO _stop FROM tidewire.events AS e
         WHERE e.tenant = _rule.tenant AND e.seq > _rule.applied_seq AND e.recorded_at >= _cutoff;
        SELECT count(*) AS looked, max(l.seq) AS looked_to, array_agg(l.seq) FILTER (WHERE l.is_due) AS seqs,
               min(l.recorded_at) FILTER (WHERE l.is_due) AS earliest, max(l.recorded_at) FILTER (WHERE l.is_due) AS latest
          INTO _found
          FROM (SELECT e.seq, e.recorded_at,
                       e.erased_at IS NULL AND e.topic ~ _rule.topic_regex
                       AND (_rule.is_reserved OR NOT starts_with(e.topic, 'tidewire.'))
                       AND NOT EXISTS (
                           SELECT FROM tidewire.retention_rules AS o
                            WHERE o.tenant = _rule.tenant AND o.specificity > _rule.specificity AND e.topic ~ o.topic_regex
                              AND (o.is_reserved OR NOT starts_with(e.topic, 'tidewire.'))) AS is_due
                  FROM (SELECT s.seq, s.recorded_at, s.topic, s.erased_at FROM tidewire.events AS s
                         WHERE s.tenant = _rule.tenant AND s.seq > _rule.applied_seq AND s.seq <= _watermark
                           AND s.seq < coalesce(_stop, _watermark + 1) AND s.recorded_at < _cutoff
                         ORDER BY s.seq LIMIT apply_retention.row_limit - _looked) AS e) AS l;
        CONTINUE WHEN _found.looked = 0;
        _emptied := 0;
        IF _found.seqs IS NOT NULL THEN
            UPDATE tidewire.erasure_changes AS c SET version = c.version + 1;
            _emptied := tidewire.redact(_rule.tenant, _found.seqs, _found.earliest, _found.latest);
        END IF;
        UPDATE tidewire.retention_rules AS r
           SET applied_seq = _found.looked_to, removed = r.removed + _emptied,
               removed_at = CASE WHEN _emptied > 0 THEN clock_timestamp() ELSE r.removed_at END
         WHERE r.tenant = _rule.tenant AND r.pattern = _rule.pattern;
        _removed := _removed + _emptied;
        _looked := _looked + _found.looked;
        EXIT WHEN _looked >= apply_retention.row_limit;
    END LOOP;
    RETURN QUERY SELECT _removed, _looked < apply_retention.row_limit;
END
$fn$;
COMMENT ON FUNCTION tidewire.apply_retention(integer) IS
    'Empties a batch of events that tenants'' rules keep no longer; call it until is_complete.';
