-- Creates a role that logs in and sees one tenant's events (tidewire.my_events), and with may_write appends them.
--
-- verifier: the password's SCRAM-SHA-256 verifier, computed by the client, so that the password is never sent and stands in
-- no log; without one the role has no password yet. connections: how many at once (CONNECTION LIMIT). is_admin: it sees
-- topics under tidewire. as well.
--
-- With the caller's rights, who needs CREATEROLE, ADMIN on tidewire_analyst and tidewire_writer (whoever has created them has
-- it), and must be the log's owner. Time limits are defaults that the role may change; CONNECTION LIMIT and temp_file_limit
-- are not, the latter set only if the caller may (superusers).
--
-- Refuses: TW400 not a verifier · TW403 see tidewire.tenant_role_issues · 42710 there is such a role · 42501 no right to.
CREATE OR REPLACE FUNCTION tidewire.create_tenant_role(
    role text, tenant text, may_write boolean DEFAULT false, is_admin boolean DEFAULT false, verifier text DEFAULT NULL,
    connections integer DEFAULT 10)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _version integer := current_setting('server_version_num')::integer / 10000;
    _group   text;
    _setting text;
BEGIN
    IF create_tenant_role.verifier !~ '^SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$' THEN
        RAISE EXCEPTION 'verifier is not a SCRAM-SHA-256 verifier'
            USING ERRCODE = 'TW400', HINT = 'Never send a password itself: use tidewire role create, or psql''s \password.';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT %s PASSWORD %L', create_tenant_role.role,
                   create_tenant_role.connections, create_tenant_role.verifier);
    FOREACH _group IN ARRAY CASE WHEN create_tenant_role.may_write THEN ARRAY['tidewire_analyst', 'tidewire_writer']
                                 ELSE ARRAY['tidewire_analyst'] END LOOP
        -- Where it can be said: has what the group may, but cannot become the group, whose objects all tenants would share.
        EXECUTE format('GRANT %I TO %I%s', _group, create_tenant_role.role,
                       CASE WHEN _version >= 16 THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END);
    END LOOP;
    FOREACH _setting IN ARRAY ARRAY[
        'statement_timeout = ''5min''', 'lock_timeout = ''10s''',
        -- Whoever has written and does nothing keeps everybody from reading on.
        'idle_in_transaction_session_timeout = ' || CASE WHEN create_tenant_role.may_write THEN '''10s''' ELSE '''1min''' END,
        'default_transaction_read_only = ' || CASE WHEN create_tenant_role.may_write THEN 'off' ELSE 'on' END] LOOP
        EXECUTE format('ALTER ROLE %I SET %s', create_tenant_role.role, _setting);
    END LOOP;
    BEGIN
        EXECUTE format('ALTER ROLE %I SET temp_file_limit = ''1GB''', create_tenant_role.role);
    EXCEPTION WHEN insufficient_privilege THEN
        NULL; -- a superuser's
    END;
    INSERT INTO tidewire.tenant_roles AS t (role, tenant, is_admin)
    VALUES (create_tenant_role.role, create_tenant_role.tenant, create_tenant_role.is_admin);
END
$fn$;
COMMENT ON FUNCTION tidewire.create_tenant_role(text, text, boolean, boolean, text, integer) IS
    'Creates a login role that sees one tenant''s events: SELECT tidewire.create_tenant_role(''acme_bi'', ''acme'').';
