-- What a change of a tenant's settings owes the servers, whoever made it: a new version, and a wake-up. The payload says nothing.
CREATE OR REPLACE FUNCTION tidewire.announce_setting_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE tidewire.credential_changes AS c SET settings_version = c.settings_version + 1;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.announce_setting_change() IS 'Trigger: tells the servers that a tenant''s settings have changed.';
