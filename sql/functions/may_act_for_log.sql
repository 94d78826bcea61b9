-- Whether the role that is logged in may use the rights of the log's owner: it acts for any tenant, and for the log.
CREATE OR REPLACE FUNCTION tidewire.may_act_for_log()
RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN pg_has_role(session_user, (SELECT c.relowner FROM pg_class AS c WHERE c.oid = 'tidewire.events'::regclass), 'USAGE');
COMMENT ON FUNCTION tidewire.may_act_for_log() IS 'Whether the logged-in role may use the rights of the log''s owner.';
