-- The cursor text of a place: "everything up to here has been seen". The same text the server gives out; src/event/cursor.rs
-- holds the layout, and a test compares the two.
CREATE OR REPLACE FUNCTION tidewire.cursor(seq bigint, recorded_at timestamptz)
RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
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
$fn$;
COMMENT ON FUNCTION tidewire.cursor(bigint, timestamptz) IS 'The cursor text of an event: SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events.';
