//! Who may: what a credential says of its holder, and the one piece of code that asks it.
//!
//! # Invariants
//! - The tenant comes from the credential alone.
//! - A secret never stands in `Debug`, an error or a log line.

pub mod claims;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod principal;

use std::fmt;

pub use claims::ClaimNames;
pub use jwks::Jwks;
pub use jwt::{Claims, Denied, Verifier};
pub use keys::Key;
pub use principal::{Credential, Principal, Role};

/// A text that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever must use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// How callers are known.
#[derive(Debug, Clone)]
pub struct Access {
    verifier: Verifier,
    /// Development mode: a request without a token acts as administrator of this tenant.
    anonymous: Option<Principal>,
}

impl Access {
    /// Tokens only.
    #[must_use]
    pub const fn tokens(verifier: Verifier) -> Self {
        Self {
            verifier,
            anonymous: None,
        }
    }

    /// Development mode: tokens, or none.
    #[must_use]
    pub fn development(verifier: Verifier) -> Self {
        Self {
            verifier,
            anonymous: Some(Principal::development()),
        }
    }

    /// Whether requests without a token are let in.
    #[must_use]
    pub const fn is_development(&self) -> bool {
        self.anonymous.is_some()
    }

    /// Who the holder of `token` is.
    ///
    /// # Errors
    /// If there is no token and one is needed, or it is not valid.
    pub async fn identify(&self, token: Option<&str>) -> Result<Principal, Denied> {
        match (token, &self.anonymous) {
            (Some(token), _) => self.verifier.verify(token).await,
            (None, Some(principal)) => Ok(principal.clone()),
            (None, None) => Err(Denied::Missing),
        }
    }
}
