-- Ends a role of a tenant: takes its tenant, its login and its groups, ends its sessions if the caller may, and drops it.
-- Returns whether it is gone. Where objects depend on it, in this database or another, it stays: without tenant, login and
-- groups; DROP OWNED and DROP ROLE are then left to whoever knows what the objects are.
--
-- With the caller's rights, as tidewire.create_tenant_role().
--
-- Refuses: TW404 a role that belongs to no tenant · 42501 no right to.
CREATE OR REPLACE FUNCTION tidewire.drop_tenant_role(role text)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _group  text;
    _others text;
    _is_gone boolean := true;
BEGIN
    PERFORM FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role % belongs to no tenant', quote_ident(drop_tenant_role.role) USING ERRCODE = 'TW404';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = drop_tenant_role.role) THEN
        DELETE FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
        RETURN true;
    END IF;
    EXECUTE format('ALTER ROLE %I NOLOGIN', drop_tenant_role.role);
    FOR _group IN
        SELECT g.rolname FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
          JOIN pg_roles AS r ON r.oid = m.member
         WHERE r.rolname = drop_tenant_role.role AND g.rolname IN ('tidewire_analyst', 'tidewire_writer') LOOP
        EXECUTE format('REVOKE %I FROM %I', _group, drop_tenant_role.role);
    END LOOP;
    BEGIN
        PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.usename = drop_tenant_role.role;
    EXCEPTION WHEN insufficient_privilege THEN
        -- They see nothing any more, but for a transaction that began before and keeps its snapshot.
        RAISE WARNING 'sessions of role % go on, without events: ending them needs pg_signal_backend',
            quote_ident(drop_tenant_role.role);
    END;
    BEGIN
        EXECUTE format('DROP ROLE %I', drop_tenant_role.role);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        GET STACKED DIAGNOSTICS _others = PG_EXCEPTION_DETAIL;
        RAISE WARNING 'role % stays, without login and tenant, since objects depend on it', quote_ident(drop_tenant_role.role)
            USING DETAIL = _others;
        _is_gone := false;
    END;
    -- Last, since the log is told of it: an open writer holds readers back, so it waits for nobody.
    DELETE FROM tidewire.tenant_roles AS t WHERE t.role = drop_tenant_role.role;
    RETURN _is_gone;
END
$fn$;
COMMENT ON FUNCTION tidewire.drop_tenant_role(text) IS 'Ends a tenant''s role and its sessions; says whether it is gone.';
