-- Why: API keys that have ended were kept for ever, and counted by each creation: half a second at a million of them.
-- Adds indexes on a table of at most some ten thousand live keys a tenant: it is locked against writes while they are made.

-- What a creation counts: keys of a tenant that are in force. Ended ones are not gone through.
CREATE INDEX api_keys_in_force ON tidewire.api_keys (tenant, coalesce(expires_at, 'infinity')) WHERE revoked_at IS NULL;
-- What is forgotten: by when they ended, 90 days after it.
CREATE INDEX api_keys_by_end ON tidewire.api_keys (least(revoked_at, expires_at)) WHERE least(revoked_at, expires_at) IS NOT NULL;
-- What bears a name: a person's keys.
CREATE INDEX api_keys_by_name ON tidewire.api_keys (tenant, name, key_id);
