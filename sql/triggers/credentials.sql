-- What a change of a credential sets in motion. That a key was used is no change.
CREATE OR REPLACE TRIGGER api_keys_announce_change
    AFTER INSERT OR UPDATE OF tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at
    ON tidewire.api_keys FOR EACH STATEMENT EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER api_keys_announce_removal AFTER DELETE ON tidewire.api_keys
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER revoked_tokens_announce_change AFTER INSERT OR UPDATE ON tidewire.revoked_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER revoked_tokens_announce_removal AFTER DELETE ON tidewire.revoked_tokens
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION tidewire.announce_credential_change();
CREATE OR REPLACE TRIGGER api_keys_record
    AFTER INSERT OR DELETE OR UPDATE OF tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, revoked_at
    ON tidewire.api_keys FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();
CREATE OR REPLACE TRIGGER revoked_tokens_record AFTER INSERT OR DELETE OR UPDATE ON tidewire.revoked_tokens
    FOR EACH ROW EXECUTE FUNCTION tidewire.record_credential();
-- Nor would they hear of this, nor would the log say who did it.
CREATE OR REPLACE TRIGGER api_keys_not_truncated BEFORE TRUNCATE ON tidewire.api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
CREATE OR REPLACE TRIGGER revoked_tokens_not_truncated BEFORE TRUNCATE ON tidewire.revoked_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
