//! One subscription of a socket.

use std::sync::Arc;

use tokio::sync::Notify;

use super::frame::Subscribe;
use crate::access::Principal;
use crate::event::Filter;
use crate::event::limits::NAME_BYTES_MAX;
use crate::feed::{Follower, Start};
use crate::http::app::App;
use crate::http::audit::Doing;
use crate::http::errors;
use crate::http::params;
use crate::http::problem::Problem;

/// A follower and the client's name for it.
#[derive(Debug)]
pub struct Subscription {
    /// The client's name for it.
    pub id: String,
    /// What it asked for.
    pub filter: Arc<Filter>,
    /// Its place.
    pub follower: Follower,
    /// Whether the client knows that it is live.
    pub is_live: bool,
}

/// Begins a subscription; `wake` is the socket's.
///
/// # Errors
/// What the client gets as an error frame.
pub async fn begin(
    app: &App,
    principal: &Principal,
    wanted: Subscribe,
    wake: &Arc<Notify>,
) -> Result<Subscription, Problem> {
    if wanted.id.is_empty() || wanted.id.len() > NAME_BYTES_MAX {
        return Err(Problem::parameter(
            "id",
            format_args!("must be 1 to {NAME_BYTES_MAX} bytes"),
        ));
    }
    if wanted.conflate_ms > 0 {
        return Err(Problem::parameter(
            "conflate_ms",
            "is not supported by this version: leave it out",
        ));
    }
    if wanted.with_state {
        return Err(Problem::parameter(
            "with_state",
            "is not supported by this version: leave it out",
        ));
    }
    let topics = wanted.topics.iter().map(String::as_str);
    let subjects = wanted.subjects.iter().map(String::as_str);
    let filter = Arc::new(params::filter(topics, subjects, principal)?);
    let identity = app.hub.identity();
    let start = wanted
        .after
        .as_deref()
        .map_or(Ok(Start::Latest), |text| params::start(text, identity))?;
    let follower = Follower::start(
        &app.hub,
        principal.tenant.clone(),
        Arc::clone(&filter),
        start,
        Arc::clone(wake),
    )
    .await
    .map_err(|error| errors::follow(&error, identity))?
    .on_lag(wanted.on_lag);
    app.audit.read(principal, Doing::Subscribed, &filter);
    Ok(Subscription {
        id: wanted.id,
        filter,
        follower,
        is_live: false,
    })
}
