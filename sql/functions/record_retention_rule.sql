-- What a change of a retention rule owes: an audit event in the tenant's own log, in the same transaction, whoever made it;
-- and the rules that may count for more topics than before are applied from the beginning.
--
-- These are the less exact ones that share a topic with one that is gone, as all of them do whose words are nowhere others. Not
-- those whose days have changed: what a rule has passed was due then, or another's, and the rest it has before it. Not those
-- beside a new one: it takes topics from them, and itself begins at the beginning.
--
-- One change at a time in a tenant: of two that do not see each other one could miss the other's rule. The server takes the
-- same lock before it changes a row (src/log/retaining.rs).
--
-- Who removed a rule: the setting tidewire.actor, else the role that is logged in.
CREATE OR REPLACE FUNCTION tidewire.record_retention_rule()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _is_other boolean := false;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        _is_other := (OLD.tenant, OLD.pattern) <> (NEW.tenant, NEW.pattern);
    END IF;
    IF TG_OP = 'DELETE' OR _is_other THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(OLD.tenant));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0, through_at = NULL
         WHERE r.tenant = OLD.tenant AND r.specificity < OLD.specificity
           AND NOT EXISTS (
               SELECT FROM unnest(string_to_array(r.pattern, '.'), string_to_array(OLD.pattern, '.')) AS s(own, gone)
                WHERE s.own <> s.gone AND s.own <> '*' AND s.gone <> '*');
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(NEW.tenant));
    ELSIF _is_other THEN
        PERFORM pg_advisory_xact_lock(1953064038, hashtext(NEW.tenant));
        UPDATE tidewire.retention_rules AS r SET applied_seq = 0, through_at = NULL
         WHERE r.tenant = NEW.tenant AND r.pattern = NEW.pattern;
    END IF;
    -- Last: an open writer holds readers back, so it waits for nobody.
    IF TG_OP = 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (OLD.tenant, tidewire.new_id(), 'tidewire.audit.retention.removed',
                coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user),
                jsonb_build_object('pattern', OLD.pattern, 'days', OLD.days));
    ELSE
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (NEW.tenant, tidewire.new_id(), 'tidewire.audit.retention.set', NEW.changed_by,
                jsonb_build_object('pattern', NEW.pattern, 'days', NEW.days));
    END IF;
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_retention_rule() IS
    'Trigger: writes an audit event about a retention rule, and has those applied anew that may count for more topics now.';
