-- What a change of a tenant's settings owes the servers, whoever made it: a mark on the tenant, and a wake-up. The payload says
-- nothing. Holds up nobody but who changes the same tenant's settings at the same time.
CREATE OR REPLACE FUNCTION tidewire.announce_setting_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    INSERT INTO tidewire.setting_changes AS c (tenant, change, changed_in)
    SELECT t.tenant, gen_random_uuid(), pg_current_xact_id()
      FROM (SELECT OLD.tenant UNION SELECT NEW.tenant) AS t(tenant)
     WHERE t.tenant IS NOT NULL
        ON CONFLICT (tenant) DO UPDATE SET change = excluded.change, changed_in = excluded.changed_in;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.announce_setting_change() IS 'Trigger: tells the servers that a tenant''s settings have changed.';
