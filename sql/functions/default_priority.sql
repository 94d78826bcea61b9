-- The priority of an event of this topic that names none: that of the most exact declared pattern which has one; else normal.
CREATE OR REPLACE FUNCTION tidewire.default_priority(tenant text, topic text)
RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT coalesce(
        (SELECT d.priority::text FROM tidewire.declared_topics AS d
          WHERE d.tenant = default_priority.tenant AND d.priority IS NOT NULL
            AND tidewire.topic_matches(default_priority.topic, d.pattern)
          ORDER BY d.specificity DESC LIMIT 1), 'normal');
$fn$;
COMMENT ON FUNCTION tidewire.default_priority(text, text) IS 'The priority of an event that names none.';
