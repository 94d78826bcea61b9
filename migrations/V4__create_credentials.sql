-- Why: agents hold API keys, and credentials end before their time. Creates only new objects: locks nothing that exists.

-- API keys. Of the key itself only its hash is here: it is shown once, when it is created.
CREATE TABLE tidewire.api_keys (
    key_id        text COLLATE "C" PRIMARY KEY CONSTRAINT api_keys_id_is_base32 CHECK (key_id ~ '^[0-9a-v]{16}$'),
    tenant        text COLLATE "C" NOT NULL CONSTRAINT api_keys_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    name          text        NOT NULL CONSTRAINT api_keys_name_is_printable CHECK (octet_length(name) BETWEEN 1 AND 255 AND name !~ '[\u0001-\u001f\u007f-\u009f]'),
    role          text        NOT NULL CONSTRAINT api_keys_role_is_one CHECK (role IN ('agent', 'dashboard', 'analyst', 'admin')),
    read_topics   text[]      NOT NULL,
    write_topics  text[]      NOT NULL,
    secret_sha256 bytea       NOT NULL CONSTRAINT api_keys_secret_is_hashed CHECK (octet_length(secret_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text        NOT NULL DEFAULT session_user,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    revoked_by    text,
    last_used_at  timestamptz,
    CONSTRAINT api_keys_revoked_by_somebody CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX api_keys_by_tenant ON tidewire.api_keys (tenant, key_id);
COMMENT ON TABLE tidewire.api_keys IS 'API keys: who may what until when. The key itself is not kept, its SHA-256 is.';
COMMENT ON COLUMN tidewire.api_keys.key_id IS 'The public part of the key: tw_<key_id>_<secret>.';
COMMENT ON COLUMN tidewire.api_keys.last_used_at IS 'Written once a minute at most, so as old as that.';

-- Tokens that ended before their time: one by its jti, or all of a subject that were issued until then.
CREATE TABLE tidewire.revoked_tokens (
    tenant     text COLLATE "C" NOT NULL CONSTRAINT revoked_tokens_tenant_is_a_name CHECK (tenant ~ '^[A-Za-z0-9._-]{1,64}$'),
    claim      text COLLATE "C" NOT NULL CONSTRAINT revoked_tokens_claim_is_one CHECK (claim IN ('jti', 'sub')),
    value      text COLLATE "C" NOT NULL CONSTRAINT revoked_tokens_value_is_short CHECK (octet_length(value) BETWEEN 1 AND 255),
    revoked_at timestamptz NOT NULL DEFAULT now(),
    revoked_by text        NOT NULL DEFAULT session_user,
    -- From then on no such token is valid any more, so that the row may go; NULL: never.
    until      timestamptz,
    PRIMARY KEY (tenant, claim, value)
);
COMMENT ON TABLE tidewire.revoked_tokens IS 'Tokens that ended before their time, by jti, or by sub for all that were issued until revoked_at.';

-- Rises with every change of a credential, so that a server sees by one number whether it must look again.
CREATE TABLE tidewire.credential_changes (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT credential_changes_has_one_row CHECK (is_only),
    version bigint  NOT NULL DEFAULT 0
);
INSERT INTO tidewire.credential_changes DEFAULT VALUES;
COMMENT ON TABLE tidewire.credential_changes IS 'A number that rises when a credential is revoked or changed. One row.';
