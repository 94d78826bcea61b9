//! Settings: who is let in.

use std::path::PathBuf;

use clap::Args;

use crate::access::Secret;

/// Who is let in. Without any of the first four: development mode, loopback only.
#[derive(Debug, Clone, Args)]
pub struct Credentials {
    /// Secret of HS256 tokens, at least 32 bytes.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub jwt_secret: Option<Secret>,

    /// PEM files with the public keys of RS256, ES256 and Ed25519 tokens, separated by commas.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_PUBLIC_KEYS",
        value_delimiter = ',',
        value_name = "PATHS"
    )]
    pub jwt_public_keys: Vec<PathBuf>,

    /// Where the identity provider publishes its keys (JSON Web Key Set).
    #[arg(long, env = "TIDEWIRE_JWKS_URL", value_name = "URL")]
    pub jwks_url: Option<String>,

    /// Let in holders of API keys alone, none of which is needed for the start: the first is created with `tidewire key
    /// create --database-url …`.
    #[arg(long, env = "TIDEWIRE_API_KEYS_ONLY")]
    pub api_keys_only: bool,

    /// Who may have issued a token (iss), separated by commas; absent: anybody who has a key.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_ISSUER",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub jwt_issuer: Vec<String>,

    /// Whom a token may be for (aud), separated by commas; absent: only tokens that name nobody.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_AUDIENCE",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub jwt_audience: Vec<String>,

    /// Seconds by which the issuer's clock may differ.
    #[arg(long, env = "TIDEWIRE_JWT_LEEWAY_S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=300), value_name = "SECONDS")]
    pub jwt_leeway_s: u64,

    /// The claim that names the tenant, such as `company_id`; with a leading / a JSON pointer.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_TENANT_CLAIM",
        default_value = "tenant",
        value_name = "CLAIM"
    )]
    pub jwt_tenant_claim: String,

    /// The claim that names the role.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_ROLE_CLAIM",
        default_value = "role",
        value_name = "CLAIM"
    )]
    pub jwt_role_claim: String,

    /// The claim with the topic patterns that may be read.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_READ_CLAIM",
        default_value = "read",
        value_name = "CLAIM"
    )]
    pub jwt_read_claim: String,

    /// The claim with the topic patterns that may be written.
    #[arg(
        long,
        env = "TIDEWIRE_JWT_WRITE_CLAIM",
        default_value = "write",
        value_name = "CLAIM"
    )]
    pub jwt_write_claim: String,
}
