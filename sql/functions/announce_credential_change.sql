-- What a change of a credential owes the servers, whoever made it: a mark that says which, and a wake-up. The payload says nothing.
-- Waits for nobody: marks are only added. A key that is created is not announced, since no server can know it before.
-- Nor are revocations or API keys that go when they had ended: no server asks about them any more.
CREATE OR REPLACE FUNCTION tidewire.announce_credential_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_TABLE_NAME = 'api_keys' THEN
        IF TG_OP = 'DELETE' AND (OLD.revoked_at IS NOT NULL OR OLD.expires_at <= clock_timestamp() - interval '1 hour') THEN
            RETURN NULL;
        END IF;
        INSERT INTO tidewire.credential_changes (changed_in, tenant, kind, value)
        SELECT pg_current_xact_id(), k.tenant, 'key', k.key_id
          FROM (SELECT OLD.tenant, OLD.key_id UNION SELECT NEW.tenant, NEW.key_id) AS k(tenant, key_id)
         WHERE k.key_id IS NOT NULL;
    ELSE
        IF TG_OP = 'DELETE' AND OLD.until <= clock_timestamp() - interval '1 hour' THEN
            RETURN NULL;
        END IF;
        INSERT INTO tidewire.credential_changes (changed_in, tenant, kind, value)
        SELECT pg_current_xact_id(), r.tenant, r.claim, r.value
          FROM (SELECT OLD.tenant, OLD.claim, OLD.value UNION SELECT NEW.tenant, NEW.claim, NEW.value) AS r(tenant, claim, value)
         WHERE r.value IS NOT NULL;
    END IF;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.announce_credential_change() IS 'Trigger: tells the servers which credential has changed.';
