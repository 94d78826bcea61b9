-- Why: the log itself. Creates only new objects: locks nothing that exists, takes milliseconds.
--
-- What is run once stands here; functions, triggers, views and grants stand in sql/ and are applied whole at every
-- `tidewire migrate`.

CREATE TYPE tidewire.priority AS ENUM ('critical', 'high', 'normal', 'low');

-- CACHE 1: a floor is the sequence's value at one moment, so no session may hold places in reserve.
CREATE SEQUENCE tidewire.events_seq AS bigint MINVALUE 0 START WITH 0 CACHE 1;
-- Place 0 is "before the first event"; the first event gets 1.
SELECT nextval('tidewire.events_seq');

-- The greatest time the log has seen, in milliseconds, advanced about once a minute. A sequence because its value is
-- read and set outside transactions: a rolled-back writer has still seen the clock.
CREATE SEQUENCE tidewire.events_clock AS bigint MINVALUE 0 START WITH 0 CACHE 1;
SELECT nextval('tidewire.events_clock');

-- Column order: seq before recorded_at, so that the time of a row is taken after its place.
CREATE TABLE tidewire.events (
    seq          bigint            NOT NULL DEFAULT nextval('tidewire.events_seq'),
    recorded_at  timestamptz       NOT NULL DEFAULT clock_timestamp(),
    occurred_at  timestamptz,
    priority     tidewire.priority NOT NULL DEFAULT 'normal',
    tenant       text COLLATE "C"  NOT NULL,
    id           text COLLATE "C"  NOT NULL DEFAULT gen_random_uuid()::text,
    topic        text COLLATE "C"  NOT NULL,
    subject      text COLLATE "C",
    source       text COLLATE "C",
    region       text COLLATE "C",
    trace        text COLLATE "C",
    content_type text COLLATE "C",
    gdpr         jsonb,
    data         jsonb,
    bytes        bytea,
    CONSTRAINT events_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    CONSTRAINT events_id_is_printable CHECK (octet_length(id) BETWEEN 1 AND 255 AND id !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT events_topic_is_dotted CHECK (octet_length(topic) <= 255 AND topic ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+){0,7}$'),
    CONSTRAINT events_subject_is_printable CHECK (octet_length(subject) BETWEEN 1 AND 255 AND subject !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT events_source_is_printable CHECK (octet_length(source) BETWEEN 1 AND 255 AND source !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT events_region_is_short CHECK (octet_length(region) BETWEEN 1 AND 64 AND region !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT events_trace_is_traceparent CHECK (trace ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    CONSTRAINT events_gdpr_is_object CHECK (jsonb_typeof(gdpr) = 'object' AND pg_column_size(gdpr) <= 4096),
    CONSTRAINT events_bytes_have_a_type CHECK ((bytes IS NULL) = (content_type IS NULL) AND (bytes IS NULL OR data IS NULL)),
    CONSTRAINT events_content_type_is_printable CHECK (octet_length(content_type) BETWEEN 1 AND 255 AND content_type !~ '[\u0001-\u001f\u007f-\u009f]'),
    CONSTRAINT events_occurred_at_is_a_date CHECK (occurred_at >= '0001-01-01T00:00:00Z' AND occurred_at < '10000-01-01T00:00:00Z'),
    -- The server refuses beyond its own limit (256 KiB of text by default); this bounds what SQL writers can store. The
    -- binary form of jsonb takes up to six times the text.
    CONSTRAINT events_data_is_bounded CHECK (pg_column_size(data) <= 8388608),
    CONSTRAINT events_bytes_are_bounded CHECK (octet_length(bytes) <= 1048576)
);

COMMENT ON TABLE tidewire.events IS
    'The log: one row per event, append-only, in the order of seq. Write with tidewire.append(), INSERT or COPY.';
COMMENT ON COLUMN tidewire.events.seq IS 'Place in the log: rises, gaps allowed. Given by the log, never by the writer.';
COMMENT ON COLUMN tidewire.events.recorded_at IS 'When the row was written (database clock); the partitioning column.';
COMMENT ON COLUMN tidewire.events.occurred_at IS 'When the fact happened, if the writer said so.';
COMMENT ON COLUMN tidewire.events.priority IS 'How long the event may wait to be batched, and who is shed first.';
COMMENT ON COLUMN tidewire.events.tenant IS 'The company that owns the event.';
COMMENT ON COLUMN tidewire.events.id IS 'Unique within its tenant for the deduplication window.';
COMMENT ON COLUMN tidewire.events.topic IS 'Dotted lower-case path, 1 to 8 segments: agent.state.updated.';
COMMENT ON COLUMN tidewire.events.subject IS 'The thing the event is about: agent-001.';
COMMENT ON COLUMN tidewire.events.source IS 'Who produced it.';
COMMENT ON COLUMN tidewire.events.region IS 'Where it was produced or must be kept.';
COMMENT ON COLUMN tidewire.events.trace IS 'W3C traceparent of the producer.';
COMMENT ON COLUMN tidewire.events.content_type IS 'Media type of bytes.';
COMMENT ON COLUMN tidewire.events.gdpr IS 'Consent and legal basis as the writer gave them.';
COMMENT ON COLUMN tidewire.events.data IS 'The payload as JSON.';
COMMENT ON COLUMN tidewire.events.bytes IS 'The payload as bytes, instead of data.';

SELECT create_hypertable('tidewire.events', 'recorded_at',
    chunk_time_interval => interval '1 day', create_default_indexes => false);

-- The tail reads by place; everyone else by tenant and place; expect and subject readers by subject.
CREATE INDEX events_by_seq ON tidewire.events (seq);
CREATE INDEX events_by_tenant ON tidewire.events (tenant, seq);
CREATE INDEX events_by_subject ON tidewire.events (tenant, subject, seq) WHERE subject IS NOT NULL;
-- Rows arrive in time order, so block ranges find a moment at almost no cost to the writer.
CREATE INDEX events_by_time ON tidewire.events USING brin (recorded_at) WITH (pages_per_range = 32, autosummarize = on);

-- One row per id still within the deduplication window: a unique index on a hypertable must hold its time column, so
-- the rule cannot stand on the log itself.
CREATE TABLE tidewire.idempotency_keys (
    seq         bigint      NOT NULL,
    recorded_at timestamptz NOT NULL,
    key         bytea       NOT NULL,
    CONSTRAINT event_id_is_unique PRIMARY KEY (key)
);
CREATE INDEX idempotency_keys_by_time ON tidewire.idempotency_keys USING brin (recorded_at) WITH (autosummarize = on);
COMMENT ON TABLE tidewire.idempotency_keys IS
    'Ids of the deduplication window: key is tidewire.idempotency_key(tenant, id), seq and recorded_at point to the event.';

-- What this log is. One row.
CREATE TABLE tidewire.log (
    is_only      boolean     PRIMARY KEY DEFAULT true CONSTRAINT log_has_one_row CHECK (is_only),
    log_id       uuid        NOT NULL DEFAULT gen_random_uuid(),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Retention has removed events up to here: a cursor below it has been overtaken.
    retained_seq bigint      NOT NULL DEFAULT 0,
    retained_at  timestamptz NOT NULL DEFAULT to_timestamp(0),
    -- Ids are remembered at least this long.
    deduplication_window interval NOT NULL DEFAULT interval '7 days',
    -- How far recorded_at may stand out of the order of seq. Readers look back this far; writers beyond it are refused.
    disorder_max interval    NOT NULL DEFAULT interval '1 day'
);
INSERT INTO tidewire.log DEFAULT VALUES;
COMMENT ON TABLE tidewire.log IS 'What this log is and how far back it reaches. One row.';

-- One row for each life of the log. A restored backup or a promoted replica begins a new one; a cursor of an earlier
-- life stays valid up to the place where the next one began.
CREATE TABLE tidewire.epochs (
    epoch             smallint    PRIMARY KEY CONSTRAINT epochs_are_positive CHECK (epoch > 0),
    after_seq         bigint      NOT NULL,
    began_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    reason            text        NOT NULL
);
COMMENT ON TABLE tidewire.epochs IS 'The lives of the log: a new row when its history may have been cut (restore, failover).';

-- Which tenant a database role writes for.
CREATE TABLE tidewire.tenant_roles (
    role   name PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL CONSTRAINT tenant_roles_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$')
);
COMMENT ON TABLE tidewire.tenant_roles IS 'Which tenant a database role belongs to; tidewire.append() writes for that tenant alone.';
