-- Why: roles of a tenant's administrators see what the log says about the tenant itself (topics under tidewire.), others do
-- not. And the planner's statistics held samples of every column of all tenants: EXPLAIN shows its estimates, from which a
-- role that may read its own events could find out other tenants' topics, ids and sources, letter by letter. No plan depends
-- on them, so they are no longer taken. Plans do depend on those of subject: they stay, and tidewire.my_events keeps
-- conditions away from them.
--
-- Waits for ANALYZE and VACUUM of the log, not for readers and writers. What was sampled before is removed if the role may;
-- else it goes with its chunk (docs/OPERATIONS.md says how a superuser removes it).

ALTER TABLE tidewire.tenant_roles ADD COLUMN is_admin boolean NOT NULL DEFAULT false;

ALTER TABLE tidewire.events
    ALTER COLUMN id SET STATISTICS 0, ALTER COLUMN topic SET STATISTICS 0, ALTER COLUMN source SET STATISTICS 0,
    ALTER COLUMN region SET STATISTICS 0, ALTER COLUMN trace SET STATISTICS 0, ALTER COLUMN content_type SET STATISTICS 0,
    ALTER COLUMN gdpr SET STATISTICS 0, ALTER COLUMN data SET STATISTICS 0, ALTER COLUMN bytes SET STATISTICS 0,
    ALTER COLUMN occurred_at SET STATISTICS 0, ALTER COLUMN priority SET STATISTICS 0;

DO $do$
BEGIN
    IF current_setting('is_superuser') = 'on' THEN
        DELETE FROM pg_statistic AS s USING pg_attribute AS a
         WHERE a.attrelid = s.starelid AND a.attnum = s.staattnum AND a.attstattarget = 0
           AND (a.attrelid = 'tidewire.events'::regclass
                OR a.attrelid IN (SELECT i.inhrelid FROM pg_inherits AS i WHERE i.inhparent = 'tidewire.events'::regclass));
    END IF;
END
$do$;
