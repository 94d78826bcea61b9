-- Why: a tenant says which topics there are, what their data looks like, and what may be kept of events without consent.
-- Creates new objects, and locks tidewire.credential_changes for a moment.

CREATE TABLE tidewire.tenant_settings (
    tenant         text COLLATE "C" PRIMARY KEY CONSTRAINT tenant_settings_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    topic_mode     text        NOT NULL DEFAULT 'open' CONSTRAINT tenant_settings_topic_mode_is_one CHECK (topic_mode IN ('open', 'declared')),
    consent        text        NOT NULL DEFAULT 'optional' CONSTRAINT tenant_settings_consent_is_one CHECK (consent IN ('optional', 'withhold', 'require')),
    consent_topics text[]      NOT NULL DEFAULT '{*}' CONSTRAINT tenant_settings_consent_topics_are_few CHECK (cardinality(consent_topics) BETWEEN 1 AND 100),
    changed_at     timestamptz NOT NULL DEFAULT now(),
    changed_by     text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE tidewire.tenant_settings IS 'What a tenant has decided: which topics may be written, and what is kept of events without consent. No row: the defaults.';
COMMENT ON COLUMN tidewire.tenant_settings.topic_mode IS 'open: any topic may be written; declared: those of tidewire.declared_topics alone.';
COMMENT ON COLUMN tidewire.tenant_settings.consent IS 'What becomes of an event whose gdpr does not say "consent": true: optional, stored; withhold, stored without its data; require, refused.';
COMMENT ON COLUMN tidewire.tenant_settings.consent_topics IS 'To which topics that applies.';

CREATE TABLE tidewire.declared_topics (
    tenant      text COLLATE "C" NOT NULL CONSTRAINT declared_topics_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    pattern     text COLLATE "C" NOT NULL CONSTRAINT declared_topics_pattern_is_one CHECK (octet_length(pattern) <= 255
                    AND pattern ~ '^([a-z0-9_-]+|\*)(\.([a-z0-9_-]+|\*)){0,7}$' AND NOT starts_with(pattern, 'tidewire.')),
    schema      jsonb CONSTRAINT declared_topics_schema_is_short CHECK (octet_length(schema::text) <= 65536),
    in_sql      text        NOT NULL DEFAULT 'refuse' CONSTRAINT declared_topics_in_sql_is_one CHECK (in_sql IN ('refuse', 'unchecked')),
    description text CONSTRAINT declared_topics_description_is_short CHECK (octet_length(description) <= 4096),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    changed_by  text        NOT NULL DEFAULT session_user,
    PRIMARY KEY (tenant, pattern)
);
COMMENT ON TABLE tidewire.declared_topics IS 'Topics that a tenant has declared, with what their data looks like.';
COMMENT ON COLUMN tidewire.declared_topics.schema IS 'JSON Schema of the data; the server enforces it, tidewire.append() cannot.';
COMMENT ON COLUMN tidewire.declared_topics.in_sql IS 'What tidewire.append() does with a topic that has a schema: refuse, or store it unchecked.';

ALTER TABLE tidewire.credential_changes ADD COLUMN settings_version bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN tidewire.credential_changes.settings_version IS 'The same for the settings of tenants.';
