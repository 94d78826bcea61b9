-- The next batch of a tenant's events for a rule: as many as row_limit after the place it has come to, in their order, up to the
-- watermark and to the first that is younger than the cutoff, and as many as bytes_limit of those that are due allows, or the one that
-- goes beyond.
--
-- looked: how many, and to which place. seqs: those that are due, NULL if none is, the time of the earliest and the latest of these, and
-- their bytes as they are stored. young_at: when the event was recorded at which the rule ends, NULL if there is none.
--
-- Locks no row, but as every reader keeps each chunk that it has looked at from being removed until the end of the transaction. Planned
-- anew for each rule where plan_cache_mode says so, as a server's does: chunks beyond the cutoff are left out.
CREATE OR REPLACE FUNCTION tidewire.find_due(rule tidewire.retention_rules, watermark bigint, cutoff timestamptz, row_limit bigint,
    bytes_limit bigint, OUT looked bigint, OUT looked_to bigint, OUT seqs bigint[], OUT earliest timestamptz, OUT latest timestamptz,
    OUT bytes bigint, OUT young_at timestamptz)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    _last bigint;
    _stop bigint;
BEGIN
    -- The last of a full batch. What is young is looked for before it alone: the chunk of the cutoff may hold millions that are older,
    -- and they would be gone through for each batch.
    SELECT s.seq INTO _last FROM tidewire.events AS s
     WHERE s.tenant = find_due.rule.tenant AND s.seq > find_due.rule.applied_seq AND s.seq <= find_due.watermark
       AND s.recorded_at < find_due.cutoff
     ORDER BY s.seq OFFSET greatest(find_due.row_limit, 1) - 1 LIMIT 1;
    SELECT e.seq, e.recorded_at INTO _stop, young_at FROM tidewire.events AS e
     WHERE e.tenant = find_due.rule.tenant AND e.seq > find_due.rule.applied_seq AND e.recorded_at >= find_due.cutoff
       AND (_last IS NULL OR e.seq < _last)
     ORDER BY e.seq LIMIT 1;
    WITH looked AS MATERIALIZED (
        SELECT s.seq, s.recorded_at, s.topic, s.erased_at IS NULL AS is_there,
               coalesce(pg_column_size(s.data), 0) + coalesce(pg_column_size(s.bytes), 0) AS bytes
          FROM tidewire.events AS s
         WHERE s.tenant = find_due.rule.tenant AND s.seq > find_due.rule.applied_seq AND s.seq <= find_due.watermark
           AND s.seq < coalesce(_stop, find_due.watermark + 1) AND s.recorded_at < find_due.cutoff
         ORDER BY s.seq LIMIT find_due.row_limit
    ), own AS MATERIALIZED (
        SELECT t.topic FROM tidewire.rules_by_topic(find_due.rule.tenant, ARRAY(
                   SELECT DISTINCT l.topic FROM looked AS l WHERE l.is_there AND l.topic ~ find_due.rule.topic_regex)) AS t
         WHERE t.pattern = find_due.rule.pattern
    ), judged AS (
        SELECT l.*, l.is_there AND l.topic IN (SELECT o.topic FROM own AS o) AS is_due FROM looked AS l
    ), weighed AS (
        SELECT d.*, coalesce(sum(d.bytes) FILTER (WHERE d.is_due) OVER (
                   ORDER BY d.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
          FROM judged AS d
    )
    SELECT count(*), max(l.seq), array_agg(l.seq) FILTER (WHERE l.is_due), min(l.recorded_at) FILTER (WHERE l.is_due),
           max(l.recorded_at) FILTER (WHERE l.is_due), coalesce(sum(l.bytes) FILTER (WHERE l.is_due), 0)
      INTO looked, looked_to, seqs, earliest, latest, bytes
      FROM weighed AS l WHERE l.bytes_before < find_due.bytes_limit;
END
$fn$;
COMMENT ON FUNCTION tidewire.find_due(tidewire.retention_rules, bigint, timestamptz, bigint, bigint) IS
    'The next batch of a tenant''s events for a rule; for tidewire.apply_retention().';
