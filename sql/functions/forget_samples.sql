-- Takes a subject out of what the planner has sampled of the log, after it was erased: samples are taken anew where the name
-- stands in them. Returns of how many tables.
--
-- Refuses: 55P03 where a table is being vacuumed for longer than half a second: call it again.
CREATE OR REPLACE FUNCTION tidewire.forget_samples(subject text)
RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
DECLARE
    _table  regclass;
    _tables integer := 0;
BEGIN
    FOR _table IN
        SELECT DISTINCT c.oid::regclass FROM pg_stats AS s
          JOIN pg_namespace AS n ON n.nspname = s.schemaname
          JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.tablename
         WHERE s.attname = 'subject'
           AND (c.oid = 'tidewire.events'::regclass
                OR c.oid IN (SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = 'tidewire.events'::regclass))
           AND (forget_samples.subject = ANY (s.most_common_vals::text::text[])
                OR forget_samples.subject = ANY (s.histogram_bounds::text::text[]))
    LOOP
        EXECUTE format('ANALYZE %s (subject)', _table);
        _tables := _tables + 1;
    END LOOP;
    RETURN _tables;
END
$fn$;
COMMENT ON FUNCTION tidewire.forget_samples(text) IS 'Takes an erased subject out of what the planner has sampled.';
