-- Why: a tenant that changes its settings again and again must cost no other tenant anything. One number for all made every server
-- read every tenant's settings again, and held up every other tenant's change until the transaction was over.
-- Creates a new object, and locks tidewire.credential_changes for a moment.

-- The last change of each tenant that has changed its settings since this; none is as good as any. changed_in is compared with the snapshot of a server's last
-- look: what that snapshot did not see is new to the server, whatever the order of the commits.
CREATE TABLE tidewire.setting_changes (
    tenant     text COLLATE "C" PRIMARY KEY,
    -- Which change it was: another after each, also after a restore that repeats numbers of transactions.
    change     uuid NOT NULL,
    changed_in xid8 NOT NULL
);
CREATE INDEX setting_changes_by_transaction ON tidewire.setting_changes (changed_in);
COMMENT ON TABLE tidewire.setting_changes IS 'The last change of each tenant''s settings: a server reads again what has changed since it looked.';
COMMENT ON COLUMN tidewire.setting_changes.changed_in IS 'The transaction that made it.';

COMMENT ON COLUMN tidewire.credential_changes.settings_version IS 'Of no use any more: see tidewire.setting_changes.';
