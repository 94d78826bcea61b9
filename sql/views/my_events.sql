-- The events of the tenant that the logged-in role belongs to: what analysts read. The barrier keeps a condition of
-- theirs from being tried on other tenants' rows.
CREATE OR REPLACE VIEW tidewire.my_events WITH (security_barrier) AS
SELECT e.seq, e.recorded_at, coalesce(e.occurred_at, e.recorded_at) AS occurred_at, e.topic, e.subject, e.source,
       e.priority, e.id, e.region, e.gdpr, e.trace, e.data, e.bytes, e.content_type
  FROM tidewire.events AS e
 WHERE e.tenant = tidewire.current_tenant();
COMMENT ON VIEW tidewire.my_events IS 'The events of the logged-in role''s tenant.';
