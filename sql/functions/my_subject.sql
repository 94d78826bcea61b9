-- The events of one subject of the logged-in role's tenant, in order, strictly after a place: what tidewire.my_events shows,
-- read by the subject's index. A function, since a condition on a view's column would be estimated from samples of all
-- tenants' subjects (sql/views/my_events.sql).
CREATE OR REPLACE FUNCTION tidewire.my_subject(of_subject text, after_seq bigint DEFAULT 0)
RETURNS TABLE (seq bigint, recorded_at timestamptz, occurred_at timestamptz, topic text, subject text, source text,
               priority tidewire.priority, id text, region text, gdpr jsonb, trace text, data jsonb, bytes bytea,
               content_type text)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 100 SET search_path = pg_catalog, pg_temp AS $fn$
SELECT e.seq, e.recorded_at, coalesce(e.occurred_at, e.recorded_at), e.topic, e.subject, e.source, e.priority, e.id,
       e.region, e.gdpr, e.trace, e.data, e.bytes, e.content_type
  FROM tidewire.events AS e
 WHERE e.tenant = (SELECT tidewire.current_tenant()) AND e.subject = my_subject.of_subject AND e.seq > my_subject.after_seq
   AND ((SELECT tidewire.sees_reserved()) OR NOT tidewire.is_reserved(e.topic))
 ORDER BY e.seq
$fn$;
COMMENT ON FUNCTION tidewire.my_subject(text, bigint) IS
    'The events of one subject of the logged-in role''s tenant: SELECT * FROM tidewire.my_subject(''deal-7'').';
