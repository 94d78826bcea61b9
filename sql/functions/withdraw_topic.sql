-- Withdraws a declared topic in the name of by; says whether there was one.
CREATE OR REPLACE FUNCTION tidewire.withdraw_topic(tenant text, pattern text, by text)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    PERFORM set_config('tidewire.actor', withdraw_topic.by, true);
    DELETE FROM tidewire.declared_topics AS d
     WHERE d.tenant = withdraw_topic.tenant AND d.pattern = withdraw_topic.pattern;
    RETURN FOUND;
END
$fn$;
COMMENT ON FUNCTION tidewire.withdraw_topic(text, text, text) IS 'Withdraws a declared topic; for the server.';
