-- Why: who stops giving signs of life is told of in the log itself, once, however many servers there are.
--
-- New objects alone: waits for nobody.

-- Up to where a named reader of the log has come. What it does and where it stands change in one transaction.
CREATE TABLE tidewire.consumers (
    name        text COLLATE "C" PRIMARY KEY CONSTRAINT consumers_name_is_one CHECK (name ~ '^[a-z][a-z_]{0,62}$'),
    seq         bigint      NOT NULL DEFAULT 0,
    recorded_at timestamptz NOT NULL DEFAULT to_timestamp(0),
    -- The life of the log in which it came there.
    epoch       smallint    NOT NULL DEFAULT 0,
    moved_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO tidewire.consumers (name) VALUES ('watch');
COMMENT ON TABLE tidewire.consumers IS 'Named readers of the log and how far each has come.';

-- Rises with every change of tidewire.watches: who keeps them in memory sees by one number whether to read them again.
CREATE SEQUENCE tidewire.watch_changes AS bigint;

CREATE TABLE tidewire.watches (
    tenant        text COLLATE "C" NOT NULL CONSTRAINT watches_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    name          text COLLATE "C" NOT NULL CONSTRAINT watches_name_is_one CHECK (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    topics        text[]      NOT NULL CONSTRAINT watches_topics_are_few CHECK (cardinality(topics) BETWEEN 1 AND 10),
    within_s      integer     NOT NULL CONSTRAINT watches_within_is_a_week_at_most CHECK (within_s BETWEEN 1 AND 604800),
    created_by    text        NOT NULL DEFAULT session_user,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by    text        NOT NULL DEFAULT session_user,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What lies at or below this place was written before somebody asked.
    since_seq     bigint      NOT NULL DEFAULT pg_sequence_last_value('tidewire.events_seq'::regclass),
    since_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a subject first found no place among those that are watched.
    overflowed_at timestamptz,
    PRIMARY KEY (tenant, name)
);
COMMENT ON TABLE tidewire.watches IS 'What a tenant expects to hear of each subject, and how often: tidewire.watched says of whom it is heard.';

CREATE TABLE tidewire.watched (
    tenant        text COLLATE "C" NOT NULL,
    watch         text COLLATE "C" NOT NULL,
    subject       text COLLATE "C" NOT NULL,
    last_seen_seq bigint      NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    -- By the watch's own clock (tidewire.watch_clock), which stands while nobody looks.
    due_at        timestamptz NOT NULL,
    is_stalled    boolean     NOT NULL DEFAULT false,
    -- Since when it is as it is.
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The last sign of life before it stalled, or the last that came too late to end that.
    silent_seq    bigint,
    silent_at     timestamptz,
    PRIMARY KEY (tenant, watch, subject),
    CONSTRAINT watched_belongs_to_a_watch FOREIGN KEY (tenant, watch) REFERENCES tidewire.watches (tenant, name) ON DELETE CASCADE
);
-- Names of people may stand here, and the planner's samples are erased by nobody.
ALTER TABLE tidewire.watched ALTER COLUMN subject SET STATISTICS 0;
CREATE INDEX watched_by_due ON tidewire.watched (due_at) WHERE NOT is_stalled;
CREATE INDEX watched_stalled ON tidewire.watched (tenant, watch, subject) WHERE is_stalled;
CREATE INDEX watched_with_a_sign ON tidewire.watched (tenant, watch, subject) WHERE is_stalled AND last_seen_seq > silent_seq;
COMMENT ON TABLE tidewire.watched IS 'Subjects of a watch: when each was last heard of, and whether it has stalled.';

-- How long nobody has looked, all in all: silence in that time is nobody's. One row.
CREATE TABLE tidewire.watch_clock (
    is_only   boolean     PRIMARY KEY DEFAULT true CONSTRAINT watch_clock_has_one_row CHECK (is_only),
    looked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    blind_ms  bigint      NOT NULL DEFAULT 0,
    -- The last time of that kind.
    gap_from  timestamptz,
    gap_to    timestamptz
);
INSERT INTO tidewire.watch_clock DEFAULT VALUES;
COMMENT ON TABLE tidewire.watch_clock IS 'How long tidewire.watched was looked at by nobody. One row.';
