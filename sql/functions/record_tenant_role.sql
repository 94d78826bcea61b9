-- Writes into the tenant's own log who gave it a role, changed one or took one away, in the same transaction, whoever did it and
-- by whatever way: tidewire.create_tenant_role(), tidewire.drop_tenant_role(), or a change of the table.
CREATE OR REPLACE FUNCTION tidewire.record_tenant_role()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _has_moved boolean := false;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        _has_moved := (OLD.role, OLD.tenant) <> (NEW.role, NEW.tenant);
    END IF;
    IF TG_OP = 'DELETE' OR _has_moved THEN
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT OLD.tenant, tidewire.new_id(), 'tidewire.audit.sql_role.removed', o.name, session_user,
               jsonb_build_object('role', o.name, 'is_admin', OLD.is_admin)
          FROM (SELECT regexp_replace(OLD.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name) AS o;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT NEW.tenant, tidewire.new_id(),
               CASE WHEN TG_OP = 'INSERT' OR _has_moved THEN 'tidewire.audit.sql_role.created'
                    ELSE 'tidewire.audit.sql_role.changed' END, n.name, session_user,
               jsonb_build_object('role', n.name, 'is_admin', NEW.is_admin, 'may_write', coalesce(
                   (SELECT pg_has_role(r.oid, to_regrole('tidewire_writer'), 'MEMBER') FROM pg_roles AS r WHERE r.rolname = NEW.role),
                   false))
          FROM (SELECT regexp_replace(NEW.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name) AS n;
    END IF;
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_tenant_role() IS 'Trigger: writes an audit event about a role of a tenant.';
