-- The rules of the log that hold for whoever writes. Row triggers are copied to chunks, statement triggers are not:
-- a DELETE aimed at a chunk would pass the latter by.
CREATE OR REPLACE TRIGGER events_claim_floor BEFORE INSERT ON tidewire.events
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.claim_floor();
CREATE OR REPLACE TRIGGER events_record_append AFTER INSERT ON tidewire.events
    REFERENCING NEW TABLE AS appended FOR EACH STATEMENT EXECUTE FUNCTION tidewire.record_append();
CREATE OR REPLACE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON tidewire.events
    FOR EACH ROW EXECUTE FUNCTION tidewire.refuse_change();
CREATE OR REPLACE TRIGGER events_not_truncated BEFORE TRUNCATE ON tidewire.events
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_change();
