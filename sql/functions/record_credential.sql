-- Writes into the tenant's own log who created or revoked which credential, in the same transaction, whoever did it: a
-- server, the command line, or an operator in SQL. Nothing of the secret is in it, nor a
-- key's name, which may be a person's: tidewire.api_keys has it. What is deleted is not named again. Who
-- takes back a revocation has no column for a name: the server says it in the setting tidewire.actor.
CREATE OR REPLACE FUNCTION tidewire.record_credential()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _row  jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
    _what text := CASE TG_TABLE_NAME WHEN 'api_keys' THEN 'api_key' ELSE 'token' END;
    _did  text;
BEGIN
    IF TG_TABLE_NAME = 'revoked_tokens' AND TG_OP = 'DELETE' AND (_row ->> 'until')::timestamptz < now() - interval '1 day' THEN
        -- It had ended by itself: nobody did anything.
        RETURN NULL;
    ELSIF TG_TABLE_NAME = 'api_keys' AND TG_OP = 'DELETE'
          AND least((_row ->> 'revoked_at')::timestamptz, (_row ->> 'expires_at')::timestamptz) < now() - interval '90 days' THEN
        -- It ended long ago, which was said if somebody did it.
        RETURN NULL;
    ELSIF TG_TABLE_NAME = 'revoked_tokens' THEN
        _did := CASE TG_OP WHEN 'DELETE' THEN 'forgotten' ELSE 'revoked' END;
    ELSIF TG_OP = 'INSERT' THEN
        _did := 'created';
    ELSIF TG_OP = 'DELETE' THEN
        _did := 'deleted';
    ELSIF (OLD.revoked_at IS NULL) AND (NEW.revoked_at IS NOT NULL) THEN
        _did := 'revoked';
    ELSE
        _did := 'changed';
    END IF;
    INSERT INTO tidewire.events (tenant, topic, subject, source, data)
    VALUES (_row ->> 'tenant', format('tidewire.audit.%s.%s', _what, _did),
            coalesce(_row ->> 'key_id', CASE WHEN TG_OP <> 'DELETE' OR _row ->> 'claim' <> 'sub' THEN _row ->> 'value' END),
            CASE _did WHEN 'created' THEN _row ->> 'created_by'
                      WHEN 'revoked' THEN _row ->> 'revoked_by'
                      WHEN 'forgotten' THEN coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user::text)
                      ELSE session_user::text END,
            _row - 'secret_sha256' - 'last_used_at' - 'tenant' - 'name'
                 - CASE WHEN TG_OP = 'DELETE' AND _row ->> 'claim' = 'sub' THEN 'value' ELSE '' END);
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_credential() IS 'Trigger: writes an audit event about a credential.';
