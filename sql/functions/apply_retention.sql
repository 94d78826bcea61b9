-- Empties a batch of events that tenants' rules keep no longer, in their places: row_limit events looked at a call, and 32 MB of
-- data as it is stored, or the event that goes beyond. Returns how many, and whether there is nothing left to look at for now;
-- where another session does it, or removes a chunk, for half a second, that is so as well, and a NOTICE says so. Where somebody
-- holds that lock who is not at that work (tidewire.undue_locks()), is_complete is NULL, and a WARNING says who.
--
-- Where a tenant's batch fails or takes too long (statement_timeout), the call ends and is_complete is NULL; a WARNING says whose
-- and why. What it has done before stays done, and that tenant and that rule have had their turn: others are first in the next. If
-- it took too long, that rule's next batch is half as large (batch_rows), and grows again with each that ends in time.
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
-- Waits for nobody who changes a rule: such a tenant is looked at in a later call, and a NOTICE says so. Where somebody holds the
-- tenant's lock who is not at that work, is_complete is NULL for one call of the round, and a WARNING says who. Who changes rules
-- of a tenant that was looked at waits for the end of the call, so that none is answered as set whose events go nevertheless. Hence
-- it ends after a second without round_at as well, once it has emptied anything.
--
-- At its end it writes tidewire.audit.retention.applied into the log of each tenant, for each rule that has emptied any.
--
-- Locks, in the order of tidewire.retain_by_rules(), until the end of the transaction: that rules are applied (advisory, 1953064034, 1);
-- the table of rules, against who locks all of it; of one tenant after the other its rules (advisory, 1953064038), its row in
-- tidewire.retention_turns and the rows of its rules, of all of which but the turn only what is free; with the first that has something
-- due the version of erasures, and the rows of events that are emptied. As whoever reads them it keeps the chunks in which it has
-- looked from being removed: tidewire.retain_oldest() waits half a second for that, and then leaves them to a later round.
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
$fn$;
COMMENT ON FUNCTION tidewire.apply_retention(integer, timestamptz) IS
    'Empties a batch of events that tenants'' rules keep no longer; call it until is_complete.';
