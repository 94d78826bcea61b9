-- Takes back a revocation in the name of by; says whether there was one.
CREATE OR REPLACE FUNCTION tidewire.withdraw_revocation(tenant text, claim text, value text, by text)
RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    PERFORM set_config('tidewire.actor', withdraw_revocation.by, true);
    DELETE FROM tidewire.revoked_tokens AS r
     WHERE r.tenant = withdraw_revocation.tenant AND r.claim = withdraw_revocation.claim AND r.value = withdraw_revocation.value;
    RETURN FOUND;
END
$fn$;
COMMENT ON FUNCTION tidewire.withdraw_revocation(text, text, text, text) IS 'Takes back a revocation; for the server.';
