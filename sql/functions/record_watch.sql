-- What a change of a watch owes: an audit event in the tenant's own log, in the same transaction, whoever made it; and what is
-- known of its subjects fits the change. Other topics: it begins anew, now. Another time: what is due moves with it.
--
-- Who removed a watch: the setting tidewire.actor, else the role that is logged in.
CREATE OR REPLACE FUNCTION tidewire.record_watch()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.topics <> NEW.topics THEN
            DELETE FROM tidewire.watched AS o WHERE o.tenant = NEW.tenant AND o.watch = NEW.name;
            UPDATE tidewire.watches AS w SET since_seq = DEFAULT, since_at = DEFAULT, overflowed_at = NULL
             WHERE w.tenant = NEW.tenant AND w.name = NEW.name;
        ELSIF OLD.within_s <> NEW.within_s THEN
            UPDATE tidewire.watched AS o SET due_at = o.due_at + (NEW.within_s - OLD.within_s) * interval '1 second'
             WHERE o.tenant = NEW.tenant AND o.watch = NEW.name;
        END IF;
    END IF;
    -- Last: an open writer holds readers back, so it waits for nobody.
    IF TG_OP = 'DELETE' THEN
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (OLD.tenant, tidewire.new_id(), 'tidewire.audit.watch.removed',
                coalesce(nullif(current_setting('tidewire.actor', true), ''), session_user),
                jsonb_build_object('watch', OLD.name, 'topics', OLD.topics, 'within_s', OLD.within_s));
    ELSE
        INSERT INTO tidewire.events (tenant, id, topic, source, data)
        VALUES (NEW.tenant, tidewire.new_id(), 'tidewire.audit.watch.set', NEW.changed_by,
                jsonb_build_object('watch', NEW.name, 'topics', NEW.topics, 'within_s', NEW.within_s));
    END IF;
    RETURN NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_watch() IS 'Trigger: writes an audit event about a watch, and fits its subjects to it.';
