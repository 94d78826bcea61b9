-- What a change of a tenant's settings sets in motion.
CREATE OR REPLACE TRIGGER tenant_settings_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings
    FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();
CREATE OR REPLACE TRIGGER declared_topics_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics
    FOR EACH ROW EXECUTE FUNCTION tidewire.announce_setting_change();
CREATE OR REPLACE TRIGGER tenant_settings_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.tenant_settings
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();
CREATE OR REPLACE TRIGGER declared_topics_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.declared_topics
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_setting();
