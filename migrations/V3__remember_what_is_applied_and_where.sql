-- Why: a start applied every definition again and waited for locks on the log, with everybody else behind it, also where
-- nothing had changed. And a dump that was restored within its own cluster passed for the log it is a copy of. So the
-- database remembers which definitions it has, and each life of the log in which database and table it is lived.
--
-- Creates a table. Locks tidewire.epochs for a moment, for which it waits until transactions that have read it are over;
-- tidewire.append() does.

CREATE TABLE tidewire.definitions (
    file       text        PRIMARY KEY,
    digest     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tidewire.definitions IS 'Which definitions (functions, triggers, views, grants) this database has: what equals its digest is not applied again.';

-- Numbers, not regclass: a dump writes a regclass as a name, which the restored table has as well. Lives from before this
-- are taken for lives of the present database.
ALTER TABLE tidewire.epochs ADD COLUMN database_oid oid, ADD COLUMN events_oid oid;
UPDATE tidewire.epochs
   SET database_oid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()),
       events_oid = 'tidewire.events'::regclass;
ALTER TABLE tidewire.epochs ALTER COLUMN database_oid SET NOT NULL, ALTER COLUMN events_oid SET NOT NULL;
