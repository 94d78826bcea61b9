-- What goes with a chunk if it is removed, by tenant and by the rule that keeps it no longer: how many events that were not
-- erased, and the last of them in the log's order. pattern is NULL for what is kept. tenants: of these alone.
--
-- Reads all of the chunk once and sorts nothing: it is some millions of events. What is matched are its topics, and the last
-- one's time is looked up by its place. In the snapshot of the statement that calls it.
--
-- Locks no row, but as every reader keeps the chunk from being removed by others until the end of the transaction: see
-- tidewire.retain_by_rules() for what makes the answer hold.
CREATE OR REPLACE FUNCTION tidewire.lost_by_rules(chunk regclass, tenants text[] DEFAULT NULL)
RETURNS TABLE (tenant text, pattern text, events bigint, last_seq bigint, last_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH held AS MATERIALIZED (
             SELECT c.tenant, c.topic, max(c.seq) AS last_seq, max(c.recorded_at) AS latest,
                    count(*) FILTER (WHERE c.erased_at IS NULL) AS events
               FROM %1$s AS c %2$s GROUP BY c.tenant, c.topic
         ), ruled AS MATERIALIZED (
             SELECT t.tenant, r.topic, r.pattern, r.days
               FROM (SELECT h.tenant, array_agg(h.topic) AS topics FROM held AS h GROUP BY h.tenant) AS t
              CROSS JOIN LATERAL tidewire.rules_by_topic(t.tenant, t.topics) AS r
         )
         SELECT l.tenant, l.pattern, l.events, l.last_seq,
                (SELECT c.recorded_at FROM %1$s AS c WHERE c.tenant = l.tenant AND c.seq = l.last_seq LIMIT 1)
           FROM (SELECT k.tenant, k.pattern, sum(k.events)::bigint AS events, max(k.last_seq) AS last_seq
                   FROM (SELECT h.tenant, h.events, h.last_seq,
                                CASE WHEN h.latest < clock_timestamp() - r.days * interval ''24 hours'' THEN r.pattern END AS pattern
                           FROM held AS h LEFT JOIN ruled AS r ON r.tenant = h.tenant AND r.topic = h.topic) AS k
                  GROUP BY k.tenant, k.pattern) AS l',
        lost_by_rules.chunk, CASE WHEN lost_by_rules.tenants IS NOT NULL THEN 'WHERE c.tenant = ANY ($1)' END)
    USING lost_by_rules.tenants;
END
$fn$;
COMMENT ON FUNCTION tidewire.lost_by_rules(regclass, text[]) IS
    'What goes with a chunk, by tenant and rule; for tidewire.retain_by_rules().';
