-- How far it is safe to read: the greatest place up to which no open transaction can still commit an event.
--
-- Reads the sequence first, then the floors. A writer that the second step does not see took its floor later, and so
-- will get places above the sequence's value. The rows must be read after this, in a new snapshot.
--
-- A place to stop at, not one to store: go on after the last event that was read. A crash of the database takes back
-- places whose transaction was never committed, and gives them out again.
--
-- holder: the backend behind the lowest floor, NULL if none is held (or if a prepared transaction holds it).
CREATE OR REPLACE FUNCTION tidewire.watermark(OUT watermark bigint, OUT newest bigint, OUT holder integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.watermark() IS
    'The greatest seq below which no open transaction can still commit an event, the newest seq, and the backend that holds the watermark back.';
