-- Refuses UPDATE, DELETE and TRUNCATE of the log for everybody: TW405. Erasure opens the door for its own transaction.
CREATE OR REPLACE FUNCTION tidewire.refuse_change()
RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_LEVEL = 'ROW' AND current_setting('tidewire.erasure', true) = 'open' THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION 'the log is append-only: % is refused', TG_OP
        USING ERRCODE = 'TW405', HINT = 'Append a correcting event. Old events leave by tidewire.retain().';
END
$fn$;
COMMENT ON FUNCTION tidewire.refuse_change() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE.';
