-- Under which an erased id is remembered, and an erased subject. With the log's id: who has a dump of another log, or none,
-- cannot try names.
CREATE OR REPLACE FUNCTION tidewire.erased_key(tenant text, name text)
RETURNS bytea LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT sha256(uuid_send(l.log_id) || convert_to(erased_key.tenant || '/' || erased_key.name, 'UTF8')) FROM tidewire.log AS l);
COMMENT ON FUNCTION tidewire.erased_key(text, text) IS 'The hash of an erased id or subject.';
