-- The place a cursor names, for SQL: WHERE seq > tidewire.cursor_seq('…').
-- Refuses: TW400 not a cursor · TW409 not a cursor of this log.
CREATE OR REPLACE FUNCTION tidewire.cursor_seq(cursor text)
RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _bits  bit varying := ''::bit varying;
    _bytes bytea;
    _seq   bigint;
    _epoch integer;
BEGIN
    IF cursor_seq.cursor !~ '^[0-9a-v]{32}$' THEN
        RAISE EXCEPTION 'not a cursor' USING ERRCODE = 'TW400';
    END IF;
    FOR _i IN 1..32 LOOP
        _bits := _bits || (strpos('0123456789abcdefghijklmnopqrstuv', substr(cursor_seq.cursor, _i, 1)) - 1)::bit(5);
    END LOOP;
    _bytes := ''::bytea;
    FOR _i IN 0..19 LOOP
        _bytes := _bytes || substring(int4send(substring(_bits FROM 8 * _i + 1 FOR 8)::bit(8)::integer) FROM 4);
    END LOOP;
    _epoch := substring(_bits FROM 1 FOR 16)::bit(16)::integer;
    _seq := substring(_bits FROM 17 FOR 64)::bit(64)::bigint;
    IF substring(sha256((SELECT uuid_send(l.log_id) FROM tidewire.log AS l) || substring(_bytes FROM 1 FOR 16)) FROM 1 FOR 4)
           <> substring(_bytes FROM 17 FOR 4)
       -- A life that came after the cursor's own shares its history only up to where it began.
       OR _seq > least((SELECT min(e.after_seq) FROM tidewire.epochs AS e WHERE e.epoch > _epoch),
                       pg_sequence_last_value('tidewire.events_seq'::regclass)) THEN
        RAISE EXCEPTION 'a cursor this log never issued, or one that lies ahead of it' USING ERRCODE = 'TW409';
    END IF;
    RETURN _seq;
END
$fn$;
COMMENT ON FUNCTION tidewire.cursor_seq(text) IS 'The seq that a cursor names: WHERE seq > tidewire.cursor_seq(''…'').';
