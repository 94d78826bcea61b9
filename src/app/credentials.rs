//! How callers are known, from the settings.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::access::jwks::JwksError;
use crate::access::keys::{PemError, SECRET_BYTES_MIN, WeakSecret};
use crate::access::{ClaimNames, Jwks, Key, Secret, Trust, Verifier};
use crate::config::{self, NoHome};
use crate::tasks::Tasks;

/// Why it cannot be known who calls.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No credentials and not loopback.
    #[error(
        "{0} can be reached from other machines, but no credentials are configured: set TIDEWIRE_JWT_SECRET (openssl rand -base64 32), TIDEWIRE_JWT_PUBLIC_KEYS, TIDEWIRE_JWKS_URL or TIDEWIRE_API_KEYS_ONLY, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// Tokens are to be let in and are not.
    #[error(
        "TIDEWIRE_API_KEYS_ONLY lets in no tokens, and {0} says whose tokens to let in: unset one of the two"
    )]
    KeysOnly(&'static str),
    /// The secret is too short.
    #[error(transparent)]
    WeakSecret(#[from] WeakSecret),
    /// A file with a public key cannot be read.
    #[error(
        "cannot read the public key {0} ({1}): see --jwt-public-keys (TIDEWIRE_JWT_PUBLIC_KEYS)"
    )]
    KeyFile(PathBuf, std::io::Error),
    /// A file without a usable public key.
    #[error("{0} {1}; see --jwt-public-keys (TIDEWIRE_JWT_PUBLIC_KEYS)")]
    Key(PathBuf, PemError),
    /// The keys' URL is not one.
    #[error(transparent)]
    Jwks(#[from] JwksError),
    /// No home folder.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The development secret cannot be kept.
    #[error(
        "cannot keep the development secret in {0} ({1}): let this user write there, or choose another folder with --data-dir (TIDEWIRE_DATA_DIR)"
    )]
    DevelopmentSecret(PathBuf, std::io::Error),
}

/// How callers are to be known: by the configured keys, or development mode on loopback.
pub(super) fn trust(
    config: &config::Serve,
    tasks: &Tasks,
) -> Result<(Trust, Option<Secret>), CredentialsError> {
    if let Some(also) = tokens_of(&config.credentials).filter(|_| config.credentials.api_keys_only)
    {
        return Err(CredentialsError::KeysOnly(also));
    }
    let mut verifier = verifier(&config.credentials)?;
    if let Some(jwks) = verifier.jwks.clone() {
        tasks.spawn_until_stop(jwks.run());
    }
    let is_configured = !verifier.keys.is_empty() || verifier.jwks.is_some();
    if is_configured || config.credentials.api_keys_only {
        let trust = Trust {
            verifier,
            is_development: false,
        };
        return Ok((trust, None));
    }
    if !config.listen.ip().is_loopback() {
        return Err(CredentialsError::Open(config.listen));
    }
    let secret = development_secret(&config.database)?;
    verifier.keys.push(Key::secret(&secret)?);
    let trust = Trust {
        verifier,
        is_development: true,
    };
    Ok((trust, Some(secret)))
}

/// The setting that says whose tokens are let in, if there is one.
fn tokens_of(config: &config::Credentials) -> Option<&'static str> {
    if config.jwt_secret.is_some() {
        Some("TIDEWIRE_JWT_SECRET")
    } else if config.jwks_url.is_some() {
        Some("TIDEWIRE_JWKS_URL")
    } else {
        (!config.jwt_public_keys.is_empty()).then_some("TIDEWIRE_JWT_PUBLIC_KEYS")
    }
}

fn verifier(config: &config::Credentials) -> Result<Verifier, CredentialsError> {
    let mut keys = Vec::new();
    if let Some(secret) = &config.jwt_secret {
        keys.push(Key::secret(secret)?);
    }
    for path in &config.jwt_public_keys {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CredentialsError::KeyFile(path.clone(), error))?;
        let read =
            Key::from_pem(&text).map_err(|error| CredentialsError::Key(path.clone(), error))?;
        keys.extend(read);
    }
    if config.jwks_url.is_some() && config.jwt_audience.is_empty() {
        tracing::warn!(
            "any token of the identity provider that names no audience is let in: set TIDEWIRE_JWT_AUDIENCE"
        );
    }
    Ok(Verifier {
        keys,
        jwks: config.jwks_url.as_deref().map(Jwks::new).transpose()?,
        names: ClaimNames {
            tenant: config.jwt_tenant_claim.clone(),
            role: config.jwt_role_claim.clone(),
            read: config.jwt_read_claim.clone(),
            write: config.jwt_write_claim.clone(),
        },
        issuers: config.jwt_issuer.clone(),
        audiences: config.jwt_audience.clone(),
        leeway_s: config.jwt_leeway_s,
    })
}

/// The development secret: kept beside the embedded database, so that tokens outlive a restart.
///
/// # Errors
/// If it can be neither read nor written.
pub fn development_secret(database: &config::Database) -> Result<Secret, CredentialsError> {
    let folder = database.folders()?.data;
    let file = folder.join("development-secret");
    read_or_create(&folder, &file).map_err(|error| CredentialsError::DevelopmentSecret(file, error))
}

fn read_or_create(folder: &Path, file: &Path) -> Result<Secret, std::io::Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().len() >= SECRET_BYTES_MIN => {
            return Ok(Secret::new(text.trim()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::fs::create_dir_all(folder)?;
    let secret = data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>());
    let mut opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    opened.write_all(secret.as_bytes())?;
    Ok(Secret::new(secret))
}
