-- What a change of a retention rule owes: an audit event in the tenant's own log, in the same transaction, whoever made it;
-- and all of the tenant's rules are applied from the beginning, since another may count for a topic now.
--
-- Who removed a rule: the setting tidewire.actor, else the role that is logged in.
CREATE OR REPLACE FUNCTION tidewire.record_retention_rule()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (OLD.tenant, tidewire.new_id(), 'tidewire.audit.retention.removed',
                coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user),
                jsonb_build_object('pattern', OLD.pattern, 'days', OLD.days));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0 WHERE r.tenant = OLD.tenant;
    ELSE
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (NEW.tenant, tidewire.new_id(), 'tidewire.audit.retention.set', NEW.changed_by,
                jsonb_build_object('pattern', NEW.pattern, 'days', NEW.days));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0 WHERE r.tenant = NEW.tenant;
    END IF;
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_retention_rule() IS 'Trigger: writes an audit event about a retention rule, and has the tenant''s rules applied anew.';
