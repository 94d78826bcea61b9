//! JSON Web Tokens: HS256 with a shared secret.
//!
//! # Invariants
//! - The algorithm is fixed by the server, never by the token.
//! - A token without `exp`, tenant or role is refused.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::{Principal, Role, Secret};
use crate::event::{Label, Tenant, TopicPattern};

/// Shortest secret: HS256 is as strong as its key, and RFC 7518 demands 256 bits.
pub const SECRET_BYTES_MIN: usize = 32;
/// Clocks may differ by so much.
const LEEWAY_S: u64 = 30;

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token.
    #[error("a token is needed: Authorization: Bearer <token>")]
    Missing,
    /// Expired.
    #[error("the token has expired")]
    Expired,
    /// Not a token of this server, or altered.
    #[error("the token is not valid here")]
    Invalid,
    /// Valid, but a claim is missing or is not what it should be.
    #[error("the token's claims are not usable: tenant, role, read and write are needed")]
    Claims,
}

/// What a token says.
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

/// Verifies and issues tokens.
#[derive(Clone)]
pub struct Verifier {
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(HS256)")
    }
}

/// The secret is too short.
#[derive(Debug, thiserror::Error)]
#[error(
    "TIDEWIRE_JWT_SECRET has {0} bytes; at least {SECRET_BYTES_MIN} are needed: openssl rand -base64 32"
)]
pub struct WeakSecret(usize);

impl Verifier {
    /// Verifies tokens signed with `secret`.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn new(secret: &Secret) -> Result<Self, WeakSecret> {
        let bytes = secret.reveal().as_bytes();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(WeakSecret(bytes.len()));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Ok(Self {
            decoding: DecodingKey::from_secret(bytes),
            validation,
        })
    }

    /// Who the holder of `token` is.
    ///
    /// # Errors
    /// If the token is not valid, has expired, or lacks a claim.
    pub fn verify(&self, token: &str) -> Result<Principal, Denied> {
        use jsonwebtoken::errors::ErrorKind;
        // A header that names another algorithm, or none, is no token of ours.
        jsonwebtoken::decode_header(token).map_err(|_| Denied::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Denied::Expired,
                ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) => Denied::Claims,
                _ => Denied::Invalid,
            })?
            .claims;
        let patterns = |texts: &[String]| {
            texts
                .iter()
                .map(|text| TopicPattern::parse(text))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| Denied::Claims)
        };
        Ok(Principal {
            tenant: Tenant::parse(&claims.tenant).map_err(|_| Denied::Claims)?,
            name: Label::parse(&claims.sub).map_err(|_| Denied::Claims)?,
            role: claims.role,
            read: patterns(&claims.read)?,
            write: patterns(&claims.write)?,
            expires_at: Some(claims.exp),
        })
    }
}

/// Issues a token.
///
/// # Errors
/// If the secret is too short.
pub fn issue(secret: &Secret, claims: &Claims) -> Result<String, WeakSecret> {
    let bytes = secret.reveal().as_bytes();
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(WeakSecret(bytes.len()));
    }
    let key = EncodingKey::from_secret(bytes);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)
        .map_err(|_| WeakSecret(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            sub: "agent-1".into(),
            exp: 4_000_000_000,
            tenant: "acme".into(),
            role: Role::Agent,
            read: vec!["agent.command.*".into()],
            write: vec!["agent.*".into()],
        }
    }

    fn secret() -> Secret {
        Secret::new("0123456789abcdef0123456789abcdef")
    }

    #[test]
    fn what_is_issued_is_verified() {
        let token = issue(&secret(), &claims()).unwrap();
        let principal = Verifier::new(&secret()).unwrap().verify(&token).unwrap();
        assert_eq!(principal.tenant.as_str(), "acme");
        assert!(principal.may_write(&crate::event::Topic::parse("agent.state.updated").unwrap()));
        assert!(!principal.may_write(&crate::event::Topic::parse("deal.won").unwrap()));
    }

    #[test]
    fn others_are_not() {
        let verifier = Verifier::new(&secret()).unwrap();
        let token = issue(
            &Secret::new("another secret of at least 32 bytes!"),
            &claims(),
        )
        .unwrap();
        assert_eq!(verifier.verify(&token), Err(Denied::Invalid));
        let token = issue(&secret(), &Claims { exp: 1, ..claims() }).unwrap();
        assert_eq!(verifier.verify(&token), Err(Denied::Expired));
        let token = issue(
            &secret(),
            &Claims {
                tenant: "a/b".into(),
                ..claims()
            },
        )
        .unwrap();
        assert_eq!(verifier.verify(&token), Err(Denied::Claims));
        // {"alg":"none"}
        let payload = token.split('.').nth(1).unwrap();
        assert_eq!(
            verifier.verify(&format!("eyJhbGciOiJub25lIn0.{payload}.")),
            Err(Denied::Invalid)
        );
        assert!(Verifier::new(&Secret::new("short")).is_err());
    }
}
