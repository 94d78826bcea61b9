-- Why: tenants' rules of retention are applied in turns, so that one that has many, or changes them all the time, keeps no other
-- from its own. And revocations that have ended are found without looking at all.
--
-- Adds columns without touching rows, and an index on a small table: each locks its table for a moment.

ALTER TABLE tidewire.retention_rules
    -- When the rule was looked at last, or made: who makes it anew brings it to the end of the line.
    ADD COLUMN looked_at timestamptz NOT NULL DEFAULT '-infinity',
    -- When nothing was left to look at, and when the event was recorded that was too young then, if there was one.
    ADD COLUMN through_at timestamptz,
    ADD COLUMN young_at timestamptz;
ALTER TABLE tidewire.retention_rules ALTER COLUMN looked_at SET DEFAULT clock_timestamp();

-- A row stays when the tenant's rules are gone: who makes them anew does not come first again.
CREATE TABLE tidewire.retention_turns (
    tenant    text COLLATE "C" PRIMARY KEY CONSTRAINT retention_turns_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    looked_at timestamptz NOT NULL
);
COMMENT ON TABLE tidewire.retention_turns IS 'When a tenant''s retention rules had their turn: whose was longest ago is next.';

-- It takes one more argument now.
DROP FUNCTION IF EXISTS tidewire.apply_retention(integer);

CREATE INDEX revoked_tokens_by_until ON tidewire.revoked_tokens (until) WHERE until IS NOT NULL;
