//! Who administers a tenant, and how often: the way into every administrative route.
//!
//! # Invariants
//! - The one place that lets administrators in: whoever is, has been counted against the tenant's rate of administration.
//! - Who is no administrator takes nothing of that rate.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::admission::Admission;
use super::app::App;
use super::caller::identify;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::access::limits::Quantity;

/// An administrator who may ask now.
#[derive(Debug, Clone)]
pub struct Administrator(pub Principal);

impl FromRequestParts<App> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = identify(app, parts, None).await?;
        let admission = Admission::of_administrator(app, &principal, &parts.extensions);
        admit(&principal, &admission)?;
        Ok(Self(principal))
    }
}

/// Lets administrators pass as often as they may.
///
/// # Errors
/// 403, 429.
pub fn admit(principal: &Principal, admission: &Admission) -> Result<(), Problem> {
    if !principal.may_administer() {
        let detail = "this is for administrators of the tenant";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    admission.take(Quantity::Administration, 1)
}
