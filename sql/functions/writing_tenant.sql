-- The tenant that the logged-in role may write for. Refuses: TW403.
CREATE OR REPLACE FUNCTION tidewire.writing_tenant(wanted text)
RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _own text := tidewire.current_tenant();
BEGIN
    IF _own IS NOT NULL THEN
        IF writing_tenant.wanted <> _own THEN
            RAISE EXCEPTION 'role % writes for its own tenant only', quote_ident(session_user) USING ERRCODE = 'TW403';
        END IF;
        RETURN _own;
    END IF;
    IF tidewire.may_act_for_log() THEN
        RETURN coalesce(writing_tenant.wanted, 'dev');
    END IF;
    RAISE EXCEPTION 'role % belongs to no tenant', quote_ident(session_user)
        USING ERRCODE = 'TW403', HINT = 'Give it one: INSERT INTO tidewire.tenant_roles (role, tenant) VALUES (…).';
END
$fn$;
COMMENT ON FUNCTION tidewire.writing_tenant(text) IS 'The tenant that the logged-in role may write for.';
