-- Refuses TRUNCATE of credentials and settings: TW405. DELETE is heard of by servers, and recorded.
CREATE OR REPLACE FUNCTION tidewire.refuse_truncate()
RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% is refused: nobody would hear of it', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'TW405', HINT = 'Use DELETE.';
END
$fn$;
COMMENT ON FUNCTION tidewire.refuse_truncate() IS 'Trigger: refuses TRUNCATE.';
