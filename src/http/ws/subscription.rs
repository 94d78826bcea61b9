//! One subscription of a socket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::frame::Subscribe;
use crate::access::Principal;
use crate::access::limits::Place;
use crate::event::Filter;
use crate::event::limits::NAME_BYTES_MAX;
use crate::feed::pace::{Pace, Rest};
use crate::feed::{Follower, Start};
use crate::http::admission::Admission;
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
    rest: Rest,
    /// Until then it has read history too often.
    pub rests_until: Option<Instant>,
    place: Place,
}

impl Subscription {
    /// Whether it is to be read.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let is_resting = |until: Instant| until > Instant::now();
        self.follower.has_news() && !self.rests_until.is_some_and(is_resting)
    }

    /// It is read again after a while: as long as the rate says, and longer each time.
    pub fn rest(&mut self, wait: Duration) {
        self.rests_until = Instant::now().checked_add(self.rest.again(wait));
    }

    /// From now on it is another credential's.
    pub fn count_as(&mut self, place: Place, reading: Pace) {
        self.place = place;
        self.follower.set_pace(reading);
    }

    /// It was read.
    pub const fn end_rest(&mut self) {
        self.rest.end();
        self.rests_until = None;
    }
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
    let admission = Admission::for_socket(app, principal);
    let place = admission.subscribe()?;
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
    .on_lag(wanted.on_lag)
    .at_pace(admission.pace());
    app.audit.read(principal, Doing::Subscribed, &filter);
    Ok(Subscription {
        id: wanted.id,
        filter,
        follower,
        is_live: false,
        rest: Rest::default(),
        rests_until: None,
        place,
    })
}
