//! Who administers a tenant, and how often: the way into every administrative route.
//!
//! # Invariants
//! - The one place that lets administrators in: whoever is, has been counted against the tenant's rate of administration.
//! - Who is no administrator takes nothing of that rate.
//! - A parameter that is not known is refused, here for all of them: a misspelt filter must not list everything.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::admission::Admission;
use super::app::App;
use super::caller::identify;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::access::limits::Quantity;

/// An administrator who may ask now, where a route takes no parameters.
#[derive(Debug, Clone)]
pub struct Administrator(pub Principal);

/// An administrator who may ask now, and the parameters, whose type denies unknown ones.
#[derive(Debug, Clone)]
pub struct Asking<Q>(pub Principal, pub Q);

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl FromRequestParts<App> for Administrator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Asking(principal, Nothing {}) = Asking::from_request_parts(parts, app).await?;
        Ok(Self(principal))
    }
}

impl<Q: DeserializeOwned> FromRequestParts<App> for Asking<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = identify(app, parts, None).await?;
        let admission = Admission::of_administrator(app, &principal, &parts.extensions);
        admit(&principal, &admission)?;
        let asked = Query::try_from_uri(&parts.uri);
        let Query(asked) =
            asked.map_err(|error| Problem::new(Kind::InvalidParameter, error.body_text()))?;
        Ok(Self(principal, asked))
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
