//! One subscription of a socket.
//!
//! # Invariants
//! - A subscription that is conflated keeps nothing back but its place: what comes within its interval stays in the log, and
//!   is read after it. So no cursor lies behind what was not delivered, and it holds a frame at most.
//! - While history is read for it its place is elsewhere (`history`): it has no news until then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::conflation::conflate;
use super::frame::Subscribe;
use crate::access::Principal;
use crate::access::limits::Place;
use crate::event::limits::{CONFLATE_MS_MAX, CONFLATED_PAGES_MAX, NAME_BYTES_MAX, PAGE_BYTES_MAX};
use crate::event::{Event, Filter, Position};
use crate::feed::pace::Rest;
use crate::feed::{AtHand, Batch, Behind, FollowError, Follower, OnLag, Past, Start};
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
    /// Its place; none while history is read for it.
    pub follower: Option<Follower>,
    /// Whether the client knows that it is live.
    pub is_live: bool,
    /// It waits until history has been read for another one of the socket.
    pub waits_for_history: bool,
    rest: Rest,
    /// Until then it has read history too often, or in vain.
    rests_until: Option<Instant>,
    /// Until then it has delivered what it may in an interval.
    conflated_until: Option<Instant>,
    place: Place,
    conflation: Option<Conflation>,
}

/// How a subscription is conflated.
#[derive(Debug, Clone, Copy)]
struct Conflation {
    /// It is read no more often than this.
    interval: Duration,
    /// Several pages of an interval become one; not where some of them could be left out with a gap.
    merges: bool,
}

/// What a subscription has read.
#[derive(Debug)]
pub struct Read {
    /// To be delivered.
    pub batch: Batch,
    /// Events before the newest of their topic and subject that it left out.
    pub left_out: u64,
}

/// What a subscription can have at once.
#[derive(Debug)]
pub enum Found {
    /// This.
    Read(Read),
    /// Nothing: history has to be asked.
    Behind(Behind),
}

impl Subscription {
    /// Reads what there is without asking the database, at most `limit` events and then, if it is conflated, what is left of
    /// them.
    ///
    /// # Errors
    /// As [`Follower::read_at_hand`].
    pub async fn read_at_hand(&mut self, limit: usize) -> Result<Found, FollowError> {
        self.waits_for_history = false;
        let (follower, conflation) = (&mut self.follower, self.conflation);
        // Nobody reads who has no news.
        let Some(follower) = follower else {
            return std::future::pending().await;
        };
        let mut batch = match follower.read_at_hand(limit).await? {
            AtHand::Batch(batch) => batch,
            AtHand::Behind(behind) => return Ok(Found::Behind(behind)),
        };
        let Some(conflation) = conflation else {
            return Ok(Found::Read(Read { batch, left_out: 0 }));
        };
        let mut left_out = conflate(&mut batch.events);
        let mut pages = 1_u32;
        while conflation.merges
            && !batch.is_caught_up
            && batch.events.len() < limit
            && bytes(&batch.events) < PAGE_BYTES_MAX
            && pages < CONFLATED_PAGES_MAX
        {
            // What is not at hand any more, or fails, is the next read's.
            let Ok(AtHand::Batch(more)) = follower.read_at_hand(limit).await else {
                break;
            };
            pages = pages.saturating_add(1);
            batch.events.extend(more.events);
            batch.through = more.through;
            batch.is_caught_up = more.is_caught_up;
            left_out = left_out.saturating_add(conflate(&mut batch.events));
        }
        Ok(Found::Read(Read { batch, left_out }))
    }

    /// Takes the follower back with what history has brought.
    pub fn take_back(&mut self, mut follower: Follower, past: Past) -> Read {
        let mut batch = follower.pass(past);
        self.follower = Some(follower);
        let is_conflated = self.conflation.is_some();
        let left_out = if is_conflated {
            conflate(&mut batch.events)
        } else {
            0
        };
        Read { batch, left_out }
    }

    /// A page was delivered: what comes within the interval is delivered after it.
    pub fn conflate_next(&mut self, batch: &Batch) {
        if let Some(conflation) = self.conflation.filter(|_| batch.is_caught_up) {
            self.conflated_until = Instant::now().checked_add(conflation.interval);
        }
    }

    /// Whether it is to be read.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.has_unread() && self.rests_until().is_none()
    }

    /// Whether there is something for it, as far as can be told, be it that it rests.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.follower.as_ref().is_some_and(Follower::has_news)
    }

    /// Everything that matches up to here has been handed out.
    #[must_use]
    pub fn after(&self) -> Position {
        self.follower
            .as_ref()
            .map_or(Position::START, Follower::after)
    }

    /// Until when it is not to be read.
    #[must_use]
    pub fn rests_until(&self) -> Option<Instant> {
        let until = self.rests_until.max(self.conflated_until);
        until.filter(|until| *until > Instant::now())
    }

    /// It is read again after a while: as long as the rate says, and longer each time.
    pub fn rest(&mut self, wait: Duration) {
        self.rests_until = Instant::now().checked_add(self.rest.again(wait));
    }

    /// From now on it is another credential's, of the same tenant.
    ///
    /// # Errors
    /// 429 if that has as many as it may.
    pub fn move_to(&mut self, admission: &Admission) -> Result<(), Problem> {
        admission.take_over(&mut self.place, "subscriptions")?;
        if let Some(follower) = &mut self.follower {
            follower.set_pace(admission.pace());
        }
        Ok(())
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
    if wanted.conflate_ms > CONFLATE_MS_MAX {
        return Err(Problem::parameter(
            "conflate_ms",
            format_args!("must be 0 to {CONFLATE_MS_MAX}"),
        ));
    }
    let conflation = (wanted.conflate_ms > 0).then(|| Conflation {
        interval: Duration::from_millis(wanted.conflate_ms),
        merges: wanted.on_lag != OnLag::Skip,
    });
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
        follower: Some(follower),
        is_live: false,
        waits_for_history: false,
        rest: Rest::default(),
        rests_until: None,
        conflated_until: None,
        place,
        conflation,
    })
}

fn bytes(events: &[Arc<Event>]) -> usize {
    events.iter().map(|event| event.json.len()).sum()
}
