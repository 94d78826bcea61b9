-- The tenant of the role that is logged in (session_user: SET ROLE does not change it), NULL if it has none.
CREATE OR REPLACE FUNCTION tidewire.current_tenant()
RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT r.tenant FROM tidewire.tenant_roles AS r WHERE r.role = session_user);
COMMENT ON FUNCTION tidewire.current_tenant() IS 'The tenant of the role that is logged in.';
