-- What a change of a credential owes the servers, whoever made it: a new version, and a wake-up. The payload says nothing.
-- Not when revocations or API keys go that had ended: no server asks about them any more.
CREATE OR REPLACE FUNCTION tidewire.announce_credential_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_TABLE_NAME = 'revoked_tokens' AND TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT FROM gone AS g WHERE g.until IS NULL OR g.until > clock_timestamp() - interval '1 hour') THEN
            RETURN NULL;
        END IF;
    ELSIF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT FROM gone AS g WHERE g.revoked_at IS NULL AND coalesce(g.expires_at, 'infinity') > clock_timestamp() - interval '1 hour') THEN
            RETURN NULL;
        END IF;
    END IF;
    UPDATE tidewire.credential_changes AS c SET version = c.version + 1;
    PERFORM pg_notify('tidewire_credentials', '');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.announce_credential_change() IS 'Trigger: tells the servers that a credential has changed.';
