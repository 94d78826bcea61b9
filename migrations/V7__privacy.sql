-- Why: people are erased from history, and a tenant says how long its topics are kept. What was erased stays in its place, empty,
-- and says when that was.
--
-- Adds a column to the log, without touching rows: locks the log for a moment, for which it waits until transactions that have
-- used it are over. The rest are new objects.

ALTER TABLE tidewire.events ADD COLUMN erased_at timestamptz;
ALTER TABLE tidewire.events ALTER COLUMN erased_at SET STATISTICS 0;
COMMENT ON COLUMN tidewire.events.erased_at IS 'When what the event said was erased; its place, topic and time are left.';

-- Ids of events that were erased, while the deduplication window lasts: a retry must not bring them back. A hash that nobody
-- can compute without the log's id; tidewire.idempotency_keys holds the beginning of the id itself.
CREATE TABLE tidewire.erased_ids (
    key         bytea       PRIMARY KEY CONSTRAINT erased_ids_are_hashes CHECK (octet_length(key) = 32),
    seq         bigint      NOT NULL,
    recorded_at timestamptz NOT NULL
);
COMMENT ON TABLE tidewire.erased_ids IS 'Ids of erased events within the deduplication window, hashed: key is tidewire.erased_key(tenant, id).';

-- One row for each subject that was erased, or is being: how far that has come. The name is not here.
CREATE TABLE tidewire.erasures (
    tenant         text COLLATE "C" NOT NULL CONSTRAINT erasures_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    subject_sha256 bytea       NOT NULL CONSTRAINT erasures_subject_is_hashed CHECK (octet_length(subject_sha256) = 32),
    asked_by       text        NOT NULL,
    began_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    -- Up to here the tenant's events have been looked through for those that the person produced.
    looked_to_seq  bigint      NOT NULL DEFAULT 0,
    erased         bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, subject_sha256)
);
COMMENT ON TABLE tidewire.erasures IS 'Erasures, done or under way, by the hash of the subject: tidewire.erased_key(tenant, subject).';

-- Rises with every erasure, so that a server sees by one number whether it must forget something. Who raises it holds it until
-- the end of the transaction: erasures come one after the other.
CREATE TABLE tidewire.erasure_changes (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT erasure_changes_has_one_row CHECK (is_only),
    version bigint  NOT NULL DEFAULT 0
);
INSERT INTO tidewire.erasure_changes DEFAULT VALUES;
COMMENT ON TABLE tidewire.erasure_changes IS 'A number that rises when events are erased. One row.';

CREATE TABLE tidewire.erased_tenants (
    tenant      text COLLATE "C" PRIMARY KEY,
    version     bigint NOT NULL,
    through_seq bigint NOT NULL
);
CREATE INDEX erased_tenants_by_version ON tidewire.erased_tenants (version);
COMMENT ON TABLE tidewire.erased_tenants IS
    'Up to which place events of a tenant have been erased, and at which version of erasure_changes: servers forget these.';

-- How long a tenant's topics are kept. Of the patterns that stand for a topic the most exact counts: specificity compares segment
-- by segment, a word before a star, a longer pattern before a closing star.
CREATE TABLE tidewire.retention_rules (
    tenant        text COLLATE "C" NOT NULL CONSTRAINT retention_rules_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    pattern       text COLLATE "C" NOT NULL CONSTRAINT retention_rules_pattern_is_one
                  CHECK (octet_length(pattern) <= 255 AND pattern ~ '^([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*)){0,7}$'),
    days          integer     NOT NULL CONSTRAINT retention_rules_days_are_some CHECK (days BETWEEN 1 AND 36500),
    changed_by    text        NOT NULL DEFAULT session_user,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Up to here the rule has been applied; 0: from the beginning.
    applied_seq   bigint      NOT NULL DEFAULT 0,
    removed       bigint      NOT NULL DEFAULT 0,
    removed_at    timestamptz,
    is_reserved   boolean     NOT NULL GENERATED ALWAYS AS (starts_with(pattern, 'tidewire.')) STORED,
    topic_regex   text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        '^' || replace(replace(replace(regexp_replace(pattern, '\*$', '@'), '.', '\.'), '*', '[^.]+'), '@', '.+') || '$') STORED,
    specificity   text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        replace(regexp_replace(regexp_replace(pattern || '.', '[a-z0-9_-]+\.', '~', 'g'), '\*\.$', ' '), '*.', '!')) STORED,
    PRIMARY KEY (tenant, pattern),
    -- Nobody wipes away the traces of what they have just done.
    CONSTRAINT retention_rules_keep_the_audit CHECK (days >= 365 OR NOT starts_with(pattern, 'tidewire.'))
);
COMMENT ON TABLE tidewire.retention_rules IS 'How many days a tenant keeps the events of a topic pattern, and what that has removed.';

-- Where chunks were removed by tenants' rules: up to where each tenant has lost events.
CREATE TABLE tidewire.retained_tenants (
    tenant       text COLLATE "C" PRIMARY KEY,
    retained_seq bigint      NOT NULL,
    retained_at  timestamptz NOT NULL
);
COMMENT ON TABLE tidewire.retained_tenants IS 'The beginning of a tenant''s events where its rules moved it beyond that of the log.';
