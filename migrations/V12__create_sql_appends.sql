-- Why: what a role appends in SQL was in no audit: the event's source is what the writer says.
--
-- New objects alone: waits for nobody.

-- A row for each statement, tenant and topic. Rows are added by tidewire.record_append() and taken by
-- tidewire.record_sql_appends(), never changed: no two transactions ever wait for each other's. No index: all of it is taken.
CREATE TABLE tidewire.sql_appends (
    role        text COLLATE "C" NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    topic       text COLLATE "C" NOT NULL,
    events      bigint      NOT NULL,
    appended_at timestamptz NOT NULL
);
COMMENT ON TABLE tidewire.sql_appends IS 'Who has appended in SQL what is not yet in tidewire.audit.events.appended.';
