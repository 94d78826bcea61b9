//! Who may: what a credential says of its holder, and the one piece of code that asks it.
//!
//! # Invariants
//! - The tenant comes from the credential alone.
//! - A secret never stands in `Debug`, an error or a log line.

mod administration;
pub mod api_key;
mod changes;
pub mod claims;
mod in_force;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod lease;
pub mod ledger;
pub mod limits;
mod lines;
pub mod looks;
pub mod news;
pub mod policy;
pub mod principal;
mod refresh;
pub mod registry;
mod remembered;
pub mod revocations;
pub mod revoked;
mod rows;
pub mod schema;
pub mod settings;
pub mod tenants;
mod upkeep;
mod uses;

use std::fmt;

pub use api_key::{ApiKey, Grant, KeyId};
pub use claims::ClaimNames;
pub use jwks::Jwks;
pub use jwt::{Claims, Denied, Verifier};
pub use keys::Key;
pub use lease::Lease;
pub use ledger::LedgerError;
pub use limits::Limits;
pub use policy::{COST_AT_ONCE_MAX, Policy, Refused};
pub use principal::{Credential, Principal, Role};
pub use registry::{Registry, RegistryError};
pub use revoked::{Claim, Revocation};

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

/// How callers are to be known.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Whose tokens count.
    pub verifier: Verifier,
    /// Development mode: a request without a token acts as administrator of the tenant `dev`.
    pub is_development: bool,
}

/// How callers are known.
#[derive(Debug, Clone)]
pub struct Access {
    trust: Trust,
    registry: Registry,
}

impl Access {
    /// By tokens that are trusted, and by what the database knows of credentials.
    #[must_use]
    pub const fn new(trust: Trust, registry: Registry) -> Self {
        Self { trust, registry }
    }

    /// Whether requests without a token are let in.
    #[must_use]
    pub const fn is_development(&self) -> bool {
        self.trust.is_development
    }

    /// API keys and revocations.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who the holder of `credential`, a token or an API key, is.
    ///
    /// # Errors
    /// If there is none and one is needed, or it is not valid.
    pub async fn identify(&self, credential: Option<&str>) -> Result<Principal, Denied> {
        let Some(credential) = credential else {
            return if self.trust.is_development {
                Ok(Principal::development())
            } else {
                Err(Denied::Missing)
            };
        };
        if let Some(key) = ApiKey::parse(credential) {
            return self.registry.identify(&key).await;
        }
        let principal = self.trust.verifier.verify(credential).await?;
        if principal.tenant.is_reserved() {
            return Err(Denied::Reserved);
        }
        self.registry.check(&principal).await?;
        Ok(principal)
    }

    /// Whether events of the principal may be written: ask this.
    ///
    /// # Errors
    /// If the tenant's settings cannot be read now.
    pub async fn policy(&self, principal: &Principal) -> Result<Policy, LedgerError> {
        let settings = self.registry.settings(&principal.tenant).await?;
        Ok(Policy::new(principal.clone(), settings))
    }

    /// A lease for what outlasts the request.
    ///
    /// # Errors
    /// If the credential has ended meanwhile.
    pub async fn lease(&self, principal: &Principal) -> Result<Lease, Denied> {
        let lease = self.registry.leases().begin(principal);
        // Once more: a revocation between the first look and the lease has not ended it.
        self.registry.check(principal).await?;
        lease.check()?;
        Ok(lease)
    }
}
