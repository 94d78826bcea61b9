-- What a change of a tenant's settings sets in motion.
CREATE OR REPLACE TRIGGER tenant_settings_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings
    FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();
CREATE OR REPLACE TRIGGER declared_topics_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics
    FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();
CREATE OR REPLACE TRIGGER tenant_settings_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();
CREATE OR REPLACE TRIGGER declared_topics_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();
-- A TRUNCATE names no tenant: servers would not hear of it.
CREATE OR REPLACE TRIGGER tenant_settings_not_truncated BEFORE TRUNCATE ON tidewire.tenant_settings
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
CREATE OR REPLACE TRIGGER declared_topics_not_truncated BEFORE TRUNCATE ON tidewire.declared_topics
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
