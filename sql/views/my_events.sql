-- The events of the tenant that the logged-in role belongs to: what analysts read. The barrier keeps a condition of
-- theirs from being tried on other tenants' rows.
--
-- In sub-selects, so that each is asked once and not for every row.
-- subject || '': the planner estimates a condition on a bare column from samples of all tenants' rows, and EXPLAIN shows what
-- it thinks. An expression it knows nothing of. tidewire.my_subject() reads by the index instead. The other columns have no
-- samples, but for seq and recorded_at.
CREATE OR REPLACE VIEW tidewire.my_events WITH (security_barrier) AS
SELECT e.seq, e.recorded_at, coalesce(e.occurred_at, e.recorded_at) AS occurred_at, e.topic, e.subject || '' AS subject,
       e.source, e.priority, e.id, e.region, e.gdpr, e.trace, e.data, e.bytes, e.content_type, e.erased_at
  FROM tidewire.events AS e
 WHERE e.tenant = (SELECT tidewire.current_tenant())
   AND ((SELECT tidewire.sees_reserved()) OR NOT (e.topic = 'tidewire' OR starts_with(e.topic, 'tidewire.')));
COMMENT ON VIEW tidewire.my_events IS 'The events of the logged-in role''s tenant.';
