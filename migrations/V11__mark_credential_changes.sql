-- Why: one number for all credentials made every server read all revocations of all tenants again after each change of one, and held up
-- every other tenant's change until the transaction was over.
-- Creates a new object in the place of a table of one row. Servers of an earlier version cannot look up credentials from then on.

DROP TRIGGER IF EXISTS api_keys_announce_removal ON tidewire.api_keys;
DROP TRIGGER IF EXISTS revoked_tokens_announce_removal ON tidewire.revoked_tokens;
DROP TABLE tidewire.credential_changes;

-- What has changed, for some minutes. changed_in is compared with the snapshot of a server's last look: what that snapshot did not see is
-- new to the server, whatever the order of the commits. Rows are only added, so that nobody waits for another.
CREATE TABLE tidewire.credential_changes (
    changed_in xid8   NOT NULL,
    change     bigint GENERATED ALWAYS AS IDENTITY,
    tenant     text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL CONSTRAINT credential_changes_kind_is_one CHECK (kind IN ('key', 'jti', 'sub')),
    value      text COLLATE "C" NOT NULL,
    PRIMARY KEY (changed_in, change)
);
COMMENT ON TABLE tidewire.credential_changes IS 'API keys and revocations that have changed in the last minutes: a server reads them again.';
COMMENT ON COLUMN tidewire.credential_changes.changed_in IS 'The transaction that made it.';
COMMENT ON COLUMN tidewire.credential_changes.kind IS 'What value is: the id of an API key, or the claim of a revocation.';

-- What is forgotten: a day after they ended, without looking at all that stays.
CREATE INDEX revoked_tokens_by_end ON tidewire.revoked_tokens (until) WHERE until IS NOT NULL;
