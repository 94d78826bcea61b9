//! Keys that verify tokens.
//!
//! # Invariants
//! - What algorithm a key is used with is fixed by the key, never by the token: a public key never passes for a secret.

use std::fmt;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::Secret;

/// Shortest secret: HS256 is as strong as its key, and RFC 7518 demands 256 bits.
pub const SECRET_BYTES_MIN: usize = 32;

/// The secret is too short.
#[derive(Debug, thiserror::Error)]
#[error(
    "TIDEWIRE_JWT_SECRET has {0} bytes; at least {SECRET_BYTES_MIN} are needed: openssl rand -base64 32"
)]
pub struct WeakSecret(usize);

impl WeakSecret {
    pub(super) const fn of(bytes: usize) -> Self {
        Self(bytes)
    }
}

/// Why a PEM text holds no key that verifies tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No PEM block.
    #[error("holds no PEM block: it begins with -----BEGIN PUBLIC KEY-----")]
    None,
    /// A private key.
    #[error(
        "holds a private key, which a server that only verifies must not have: openssl pkey -pubout"
    )]
    Private,
    /// A certificate.
    #[error("holds a certificate: take the key out of it with openssl x509 -pubkey -noout")]
    Certificate,
    /// Another kind of key, or damaged.
    #[error("holds a key that is none of RSA (2048 bits or more), EC P-256 and Ed25519")]
    Unsupported,
}

/// A key and what it is used for.
#[derive(Clone)]
pub struct Key {
    /// The name that tokens call it by. Without one it is tried for every token.
    id: Option<String>,
    /// The only algorithm it is used with.
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

impl Key {
    /// The key of HS256 tokens.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn secret(secret: &Secret) -> Result<Self, WeakSecret> {
        let bytes = secret.reveal().as_bytes();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(WeakSecret(bytes.len()));
        }
        Ok(Self {
            id: None,
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(bytes),
        })
    }

    /// The public keys of a PEM text: RSA (RS256), EC P-256 (ES256), Ed25519.
    ///
    /// # Errors
    /// If there is none, or one of another kind.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, PemError> {
        let mut keys = Vec::new();
        for (at, _) in text.match_indices("-----BEGIN ") {
            let block = text.get(at..).unwrap_or_default();
            let end = block
                .find("-----END ")
                .and_then(|end| {
                    block
                        .get(end..)?
                        .find('\n')
                        .map(|line| end.saturating_add(line))
                })
                .unwrap_or(block.len());
            keys.push(public_key(block.get(..end).unwrap_or_default())?);
        }
        if keys.is_empty() {
            return Err(PemError::None);
        }
        Ok(keys)
    }

    /// The keys of a set that verify tokens; others (for encryption, of unknown kinds, secrets) are left out.
    #[must_use]
    pub fn from_jwks(set: &JwkSet) -> Vec<Self> {
        set.keys.iter().filter_map(from_jwk).collect()
    }

    /// Whether a token of this header may be verified with it.
    #[must_use]
    pub fn is_for(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let is_named = match (&self.id, id) {
            (Some(own), Some(id)) => own == id,
            _ => true,
        };
        is_named && self.algorithm == algorithm
    }
}

/// Bytes of an uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;
/// Bits of an RSA modulus, by NIST SP 800-131A.
const RSA_BITS_MIN: usize = 2048;

fn public_key(block: &str) -> Result<Key, PemError> {
    let label = block.trim_start_matches("-----BEGIN ");
    if label.starts_with("CERTIFICATE") {
        return Err(PemError::Certificate);
    }
    let is_private = label
        .split_once("-----")
        .is_some_and(|(label, _)| label.contains("PRIVATE"));
    if is_private {
        return Err(PemError::Private);
    }
    let bytes = block.as_bytes();
    let key = |algorithm, decoding| Key {
        id: None,
        algorithm,
        decoding,
    };
    if let Ok(decoding) = DecodingKey::from_rsa_pem(bytes) {
        // DER of the modulus and the exponent: a few bytes more than the modulus.
        let is_long = decoding
            .try_get_as_bytes()
            .is_ok_and(|der| der.len().saturating_mul(8) >= RSA_BITS_MIN);
        return is_long
            .then(|| key(Algorithm::RS256, decoding))
            .ok_or(PemError::Unsupported);
    }
    if let Ok(decoding) = DecodingKey::from_ec_pem(bytes) {
        let is_p256 = decoding
            .try_get_as_bytes()
            .is_ok_and(|point| point.len() == P256_POINT_BYTES);
        return is_p256
            .then(|| key(Algorithm::ES256, decoding))
            .ok_or(PemError::Unsupported);
    }
    DecodingKey::from_ed_pem(bytes)
        .map(|decoding| key(Algorithm::EdDSA, decoding))
        .map_err(|_| PemError::Unsupported)
}

fn from_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let signs = common
        .public_key_use
        .as_ref()
        .is_none_or(|of| *of == PublicKeyUse::Signature)
        && common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // A secret that stands at a URL is none.
        _ => return None,
    };
    let is_meant = common.key_algorithm.is_none_or(|meant| meant == name);
    (signs && is_meant)
        .then(|| DecodingKey::from_jwk(jwk).ok())
        .flatten()
        .map(|decoding| Key {
            id: common.key_id.clone(),
            algorithm,
            decoding,
        })
}
