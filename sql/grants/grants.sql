-- Who may do what in SQL. Runs when a definition or one of these roles is new, and skips roles that do not
-- exist (see sql/roles/roles.sql).
-- Functions are open to everybody by default in PostgreSQL: here nothing is, but what is granted below.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tidewire FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA tidewire FROM PUBLIC;
DO $do$
BEGIN
    IF to_regrole('tidewire_writer') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA tidewire TO tidewire_writer;
        GRANT EXECUTE ON FUNCTION tidewire.append(text, jsonb, text, text, text, text, timestamptz, text, jsonb, text,
            bytea, text, text, text), tidewire.current_tenant(), tidewire.cursor_seq(text) TO tidewire_writer;
    END IF;
    IF to_regrole('tidewire_loader') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA tidewire TO tidewire_loader;
        -- Not seq and recorded_at: the log gives these.
        GRANT INSERT (tenant, id, topic, subject, source, priority, occurred_at, region, gdpr, trace, data, bytes,
            content_type) ON tidewire.events TO tidewire_loader;
        GRANT USAGE ON SEQUENCE tidewire.events_seq TO tidewire_loader;
        GRANT EXECUTE ON FUNCTION tidewire.new_id() TO tidewire_loader;
    END IF;
    IF to_regrole('tidewire_analyst') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA tidewire TO tidewire_analyst;
        GRANT SELECT ON tidewire.my_events TO tidewire_analyst;
        GRANT EXECUTE ON FUNCTION tidewire.current_tenant(), tidewire.sees_reserved(), tidewire.my_subject(text, bigint),
            tidewire.cursor(bigint, timestamptz), tidewire.cursor_seq(text) TO tidewire_analyst;
    END IF;
    IF to_regrole('tidewire_monitor') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA tidewire TO tidewire_monitor;
        GRANT SELECT ON tidewire.writers, tidewire.log, tidewire.epochs TO tidewire_monitor;
        -- The view asks for the sequence's value with the reader's rights.
        GRANT SELECT ON SEQUENCE tidewire.events_seq TO tidewire_monitor;
        GRANT EXECUTE ON FUNCTION tidewire.watermark(), tidewire.floor_class() TO tidewire_monitor;
    END IF;
END
$do$;
-- A grant on the log is copied to its chunks, of which nobody has a use.
SELECT tidewire.close_chunks();
