-- The retention rules of these tenants as one text, which is another one if any of them is another. In the snapshot of the
-- statement that calls it.
CREATE OR REPLACE FUNCTION tidewire.rules_of(tenants text[])
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT coalesce(string_agg(concat_ws(' ', r.tenant, r.pattern, r.days), E'\n' ORDER BY r.tenant, r.pattern), '')
      FROM tidewire.retention_rules AS r WHERE r.tenant = ANY (rules_of.tenants);
$fn$;
COMMENT ON FUNCTION tidewire.rules_of(text[]) IS 'Tenants'' retention rules as a text to compare; for tidewire.retain_by_rules().';
