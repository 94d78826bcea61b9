-- What a change of a credential owes the servers, whoever made it: a new version, and a wake-up. The payload says nothing.
CREATE OR REPLACE FUNCTION tidewire.announce_credential_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE tidewire.credential_changes AS c SET version = c.version + 1;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.announce_credential_change() IS 'Trigger: tells the servers that a credential has changed.';
