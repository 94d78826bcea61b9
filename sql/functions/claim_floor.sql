-- Announces this transaction as a writer, before its first row gets a place.
--
-- Takes a shared transaction-level advisory lock that carries the sequence's current value: every place this
-- transaction will hand out lies above it. Readers stop below the lowest floor that is held (tidewire.watermark), so an
-- event that commits late is never passed. Shared locks: writers never wait for each other.
--
-- One lock a transaction, not one a statement: the floor is kept in a transaction-local setting, which a savepoint's
-- rollback takes back together with the lock. Whatever the setting says, the floor lies at or below the sequence's
-- current value and within 2^31 of it (only its low 32 bits are kept), so nobody can forge one that is too high.
--
-- Whatever the session's synchronous_commit, this transaction reaches the disk before anyone sees it: else a reader could
-- have seen an event that a crash takes back, and its place would go to another.
--
-- Refuses: TW503 when the database's clock stands so far behind the newest event that readers, who look for events by
-- time, would not find this one.
CREATE OR REPLACE FUNCTION tidewire.claim_floor()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.claim_floor() IS
    'Trigger: announces a writer by a shared advisory lock that carries its floor, until its transaction ends.';
