-- What a change of a watch sets in motion. Not what the watch itself notes (overflowed_at).
CREATE OR REPLACE TRIGGER watches_are_claimed BEFORE INSERT OR DELETE OR UPDATE OF tenant, name, topics, within_s
    ON tidewire.watches FOR EACH STATEMENT EXECUTE FUNCTION tidewire.claim_watches();
CREATE OR REPLACE TRIGGER watches_record AFTER INSERT OR DELETE OR UPDATE OF tenant, name, topics, within_s
    ON tidewire.watches FOR EACH ROW EXECUTE FUNCTION tidewire.record_watch();
-- It would name no tenant, and the log would not say who did it.
CREATE OR REPLACE TRIGGER watches_not_truncated BEFORE TRUNCATE ON tidewire.watches
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
