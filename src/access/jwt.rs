//! JSON Web Tokens: HS256 with a shared secret; RS256, ES256 and Ed25519 with public keys, from files or from a URL.
//!
//! # Invariants
//! - The algorithm is fixed by the key, never by the token.
//! - A token without `exp`, tenant or role is refused; one that names an audience is for that audience only.

use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::claims::ClaimNames;
use super::jwks::Jwks;
use super::keys::{Key, SECRET_BYTES_MIN, WeakSecret};
use super::{Principal, Role, Secret};

/// Bytes of a token. Headers are no longer.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token.
    #[error("a token or an API key is needed: Authorization: Bearer <credential>")]
    Missing,
    /// Expired.
    #[error("the credential has expired")]
    Expired,
    /// Not valid yet.
    #[error("the token is not valid yet (nbf): are the clocks right?")]
    Early,
    /// Of another issuer, or for somebody else.
    #[error("the token is not meant for this server: iss or aud is another")]
    Elsewhere,
    /// Not a token of this server, or altered.
    #[error("the token is not valid here")]
    Invalid,
    /// Withdrawn.
    #[error("the credential has been revoked")]
    Revoked,
    /// Withdrawn, or changed in what it grants, since something was begun with it.
    #[error("the credential has been revoked, or what it grants was changed: ask again")]
    Ended,
    /// Not known here, and who knows, the database or the identity provider, cannot be asked.
    #[error("the credential cannot be checked at the moment")]
    Unavailable,
    /// Of a tenant that is the server's own.
    #[error("the token's tenant is one in which servers check themselves: nobody else is let in")]
    Reserved,
    /// Valid, but a claim is missing or is not what it should be.
    #[error("the token's claim {0} is missing or not usable")]
    Claim(String),
}

/// What a token of our own says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The credential's name.
    pub sub: String,
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
    /// Whose events.
    pub tenant: String,
    /// What it is for.
    pub role: Role,
    /// Topic patterns it may read.
    #[serde(default)]
    pub read: Vec<String>,
    /// Topic patterns it may write.
    #[serde(default)]
    pub write: Vec<String>,
}

/// Verifies tokens.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    /// Keys that do not change.
    pub keys: Vec<Key>,
    /// Keys that do.
    pub jwks: Option<Jwks>,
    /// Where the claims stand.
    pub names: ClaimNames,
    /// Who may have issued a token; empty: anybody who has a key.
    pub issuers: Vec<String>,
    /// What a token's audience may be; empty: only tokens without one.
    pub audiences: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway_s: u64,
}

impl Verifier {
    /// Who the holder of `token` is.
    ///
    /// # Errors
    /// If the token is not valid, has expired, or lacks a claim.
    pub async fn verify(&self, token: &str) -> Result<Principal, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Invalid)?;
        // RFC 7515, 4.1.11: what must be understood and is not.
        if header.crit.is_some() {
            return Err(Denied::Invalid);
        }
        if let Some(result) = self.try_keys(token, &header) {
            return result;
        }
        // A key that is not known: perhaps a new one.
        let Some(jwks) = self.jwks.as_ref().filter(|_| is_published(header.alg)) else {
            return Err(Denied::Invalid);
        };
        let is_answered = jwks.look_again().await;
        self.try_keys(token, &header).unwrap_or({
            // Nobody may be turned away for good because the provider was away when its key was asked for.
            Err(if is_answered {
                Denied::Invalid
            } else {
                Denied::Unavailable
            })
        })
    }

    /// The outcome with the key that signed it, or the last that might have; `None` if there is none.
    fn try_keys(&self, token: &str, header: &Header) -> Option<Result<Principal, Denied>> {
        let published = self.jwks.as_ref().map(Jwks::keys);
        let published = published.iter().flat_map(|keys| keys.iter());
        let mut last = None;
        for key in self.keys.iter().chain(published) {
            if !key.is_for(header.kid.as_deref(), header.alg) {
                continue;
            }
            let result = self.try_key(token, key);
            if result != Err(Denied::Invalid) {
                return Some(result);
            }
            last = Some(result);
        }
        last
    }

    fn try_key(&self, token: &str, key: &Key) -> Result<Principal, Denied> {
        use jsonwebtoken::errors::ErrorKind;
        let validation = self.validation(key.algorithm);
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Denied::Expired,
                ErrorKind::ImmatureSignature => Denied::Early,
                ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => Denied::Elsewhere,
                ErrorKind::MissingRequiredClaim(name) => Denied::Claim(name.clone()),
                ErrorKind::Json(_) => Denied::Claim("exp, nbf, iss, sub or aud".into()),
                _ => Denied::Invalid,
            })?
            .claims;
        // The validation looks at an audience only if it is text.
        if self.audiences.is_empty() && claims.contains_key("aud") {
            return Err(Denied::Elsewhere);
        }
        let principal = self.names.principal(&claims).map_err(Denied::Claim)?;
        Ok(principal.by_a_clock_that_may_differ(self.leeway_s))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.leeway_s;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.push("iss");
        }
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Whether keys of this algorithm are published: secrets are not.
const fn is_published(algorithm: Algorithm) -> bool {
    !matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

/// A token of our own, which can be revoked: alone, or with all of its subject until a time.
#[derive(Serialize)]
struct Issued<'a> {
    #[serde(flatten)]
    claims: &'a Claims,
    jti: String,
    iat: u64,
}

/// Issues a token, signed with a shared secret, with an id and the time.
///
/// # Errors
/// If the secret is too short.
pub fn issue(secret: &Secret, claims: &Claims) -> Result<String, WeakSecret> {
    let bytes = secret.reveal().as_bytes();
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(WeakSecret::of(bytes.len()));
    }
    let key = EncodingKey::from_secret(bytes);
    let issued = Issued {
        claims,
        jti: uuid::Uuid::now_v7().to_string(),
        iat: jsonwebtoken::get_current_timestamp(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &issued, &key)
        .map_err(|_| WeakSecret::of(bytes.len()))
}
