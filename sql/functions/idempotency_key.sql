-- The fixed-size key under which an event's id is remembered.
-- The first eight bytes are the id's own: ids that rise with time (UUIDv7) then land on the right edge of the index,
-- where an insert is cheap. The rest is a hash of tenant and id; a tenant's name cannot contain the separator.
-- Frozen: stored keys depend on it.
CREATE OR REPLACE FUNCTION tidewire.idempotency_key(tenant text, id text)
RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(convert_to(id, 'UTF8') FROM 1 FOR 8)
    || substring(sha256(convert_to(tenant || '/' || id, 'UTF8')) FROM 1 FOR 16);
