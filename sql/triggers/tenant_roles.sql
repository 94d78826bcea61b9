-- After the row is there: what is wrong with it, tidewire.tenant_role_issues says.
CREATE OR REPLACE TRIGGER tenant_roles_are_held AFTER INSERT OR UPDATE ON tidewire.tenant_roles
    FOR EACH ROW EXECUTE FUNCTION tidewire.refuse_strong_role();
CREATE OR REPLACE TRIGGER tenant_roles_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_roles
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_tenant_role();
-- It would name no tenant, and the log would not say who did it.
CREATE OR REPLACE TRIGGER tenant_roles_not_truncated BEFORE TRUNCATE ON tidewire.tenant_roles
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
