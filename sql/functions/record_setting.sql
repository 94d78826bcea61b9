-- Writes into the tenant's own log who changed which setting, in the same transaction, whoever did it. Who deletes has no
-- column for a name: the server says it in the setting tidewire.actor, which counts for its transaction alone.
CREATE OR REPLACE FUNCTION tidewire.record_setting()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _row jsonb := to_jsonb(CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END);
BEGIN
    INSERT INTO tidewire.events (tenant, topic, subject, source, data)
    VALUES (_row ->> 'tenant',
            CASE WHEN TG_TABLE_NAME = 'tenant_settings' THEN 'tidewire.audit.settings.changed'
                 WHEN TG_OP = 'DELETE' THEN 'tidewire.audit.topic.withdrawn'
                 ELSE 'tidewire.audit.topic.declared' END,
            _row ->> 'pattern',
            CASE TG_OP WHEN 'DELETE' THEN coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user::text)
                       ELSE _row ->> 'changed_by' END,
            _row - 'tenant' - 'changed_by' - 'changed_at');
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_setting() IS 'Trigger: writes an audit event about a tenant''s settings.';
