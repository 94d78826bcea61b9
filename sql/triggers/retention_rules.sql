-- Not what the rules have removed: that changes with every batch.
CREATE OR REPLACE TRIGGER retention_rules_record AFTER INSERT OR DELETE OR UPDATE OF tenant, pattern, days
    ON tidewire.retention_rules FOR EACH ROW EXECUTE FUNCTION tidewire.record_retention_rule();
-- The log would not say who did it, nor would the others be applied anew.
CREATE OR REPLACE TRIGGER retention_rules_not_truncated BEFORE TRUNCATE ON tidewire.retention_rules
    FOR EACH STATEMENT EXECUTE FUNCTION tidewire.refuse_truncate();
