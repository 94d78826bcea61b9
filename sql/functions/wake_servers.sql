-- Sends NOTIFY if a server sleeps, and only then.
--
-- A server that sleeps holds its slot's lock exclusively; one that reads anyway holds nothing. Taking each slot's lock
-- shared until the end of the transaction answers two questions at once: it fails if that server sleeps (then NOTIFY),
-- and while it is held that server cannot fall asleep, so it looks again after this transaction has ended. Locks are
-- not part of a snapshot: this is true under REPEATABLE READ as well, and a server that dies frees its slot.
--
-- The setting tidewire.own_slot names the server that writes this, if one does: it learns of its own commits by itself.
-- -1: a server without a slot, or one that is to be woken nevertheless.
--
-- The payload is empty: a wake-up, never data. Servers beyond the eighth have no slot and poll.
CREATE OR REPLACE FUNCTION tidewire.wake_servers()
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.wake_servers() IS 'Sends NOTIFY tidewire if a server sleeps.';
