-- What a change of a credential sets in motion. That a key was used is no change.
CREATE OR REPLACE TRIGGER api_keys_announce_change
    AFTER DELETE OR UPDATE OF key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at
    ON tidewire.api_keys FOR EACH ROW EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER revoked_tokens_announce_change AFTER INSERT OR DELETE OR UPDATE ON tidewire.revoked_tokens
    FOR EACH ROW EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER api_keys_record
    AFTER INSERT OR DELETE OR UPDATE OF key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at
    ON tidewire.api_keys FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();
CREATE OR REPLACE TRIGGER revoked_tokens_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.revoked_tokens
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();
-- Servers would not hear of this, nor would the log say who did it.
CREATE OR REPLACE TRIGGER api_keys_not_truncated BEFORE TRUNCATE ON tidewire.api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
CREATE OR REPLACE TRIGGER revoked_tokens_not_truncated BEFORE TRUNCATE ON tidewire.revoked_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
