-- Writes into the tenant's own log who asked for what is held of a person. Not the name: its hash.
CREATE OR REPLACE FUNCTION tidewire.record_subject_read(tenant text, subject text, actor text)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _hash text := encode(tidewire.erased_key(record_subject_read.tenant, record_subject_read.subject), 'hex');
BEGIN
    INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
    VALUES (record_subject_read.tenant, tidewire.new_id(), 'tidewire.audit.subject.read', _hash, record_subject_read.actor,
            jsonb_build_object('subject_sha256', _hash));
END
$fn$;
COMMENT ON FUNCTION tidewire.record_subject_read(text, text, text) IS 'Writes an audit event: somebody has asked for what is held of a subject.';
