-- After the row is there: what is wrong with it, tidewire.tenant_role_issues says.
CREATE OR REPLACE TRIGGER tenant_roles_are_held AFTER INSERT OR UPDATE ON tidewire.tenant_roles
    FOR EACH ROW EXECUTE FUNCTION tidewire.refuse_strong_role();
