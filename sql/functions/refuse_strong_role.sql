-- Refuses to give a tenant to a role that could get past it (tidewire.tenant_role_issues): TW403.
CREATE OR REPLACE FUNCTION tidewire.refuse_strong_role()
RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _issues text := (SELECT string_agg(i.issue, '; ') FROM tidewire.tenant_role_issues AS i WHERE i.role = NEW.role);
BEGIN
    IF _issues IS NOT NULL THEN
        RAISE EXCEPTION 'role % cannot be held to tenant %: %', quote_ident(NEW.role), NEW.tenant, _issues
            USING ERRCODE = 'TW403', HINT = 'Take that from it, or use a role of its own: tidewire.create_tenant_role().';
    END IF;
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.refuse_strong_role() IS 'Trigger: refuses to give a tenant to a role that could get past it.';
