-- Whether the role that is logged in sees the topics that the log keeps for itself (tidewire.…): only those that are marked as
-- administrators of their tenant do.
CREATE OR REPLACE FUNCTION tidewire.sees_reserved()
RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT r.is_admin FROM tidewire.tenant_roles AS r WHERE r.role = session_user), false);
COMMENT ON FUNCTION tidewire.sees_reserved() IS 'Whether the logged-in role sees topics under tidewire.';
