//! `GET /v1/audit`: what is committed between two places, counted and summed up, to be compared with what was delivered.
//!
//! # Invariants
//! - It says what the database holds, not what this server remembers: the window is not asked.
//! - Nothing that was acknowledged before the question is left out: where it cannot be read yet, there is no answer.
//! - Nobody learns of more than they may read.
//! - Bounded by pages and by time; what is left is asked for with `after=<through>`.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};

use super::administrator::admit;
use super::admission::Admission;
use super::app::App;
use super::audit::Doing;
use super::caller::{identify, while_held};
use super::errors;
use super::params;
use super::problem::{Kind, Problem};
use crate::access::Principal;
use crate::access::limits::Quantity;
use crate::event::digest::IdsDigest;
use crate::event::limits::PAGE_EVENTS_MAX;
use crate::event::{Filter, Position};
use crate::feed::{NoEnd, Start};
use crate::log::Page;
use crate::log::consumers::Reached;
use crate::log::read::Query;

/// Intervals of one answer, each a page of the log.
const INTERVALS_MAX: usize = 20;
/// Events that are named of those that a consumer has not passed.
const MISSING_MAX: usize = 100;
/// How long one request reads.
const READING_MAX: Duration = Duration::from_secs(5);

/// Events after a place, up to another.
#[derive(Debug, Serialize)]
struct Interval {
    after: String,
    through: String,
    count: u64,
    digest: String,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Committed {
    after: String,
    /// How far this answer goes.
    through: String,
    /// Where all of it ends.
    until: String,
    has_more: bool,
    count: u64,
    digest: String,
    intervals: Vec<Interval>,
    /// If it is compared with a consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<Consumer>,
}

/// How far a consumer has come, and what of this answer it has not passed.
#[derive(Debug, Serialize)]
struct Consumer {
    name: String,
    cursor: String,
    is_paused: bool,
    /// The oldest place that is kept, if the consumer had not come as far: what it had not passed before it is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_before: Option<String>,
    /// The first of them.
    missing: Vec<String>,
}

/// The query.
#[derive(Debug, Default)]
struct Wanted {
    topics: Option<String>,
    subjects: Option<String>,
    after: Option<String>,
    until: Option<String>,
    consumer: Option<String>,
}

/// Of an event what is summed up.
#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let field = match name.as_ref() {
                "topics" => &mut wanted.topics,
                "subjects" => &mut wanted.subjects,
                "after" => &mut wanted.after,
                "until" => &mut wanted.until,
                "consumer" => &mut wanted.consumer,
                other => return Err(Problem::parameter(other, "is not a parameter here")),
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(Problem::parameter(&name, "stands twice"));
            }
        }
        Ok(wanted)
    }

    /// Where it ends: not before what was acknowledged when it was asked.
    async fn until(&self, app: &App, principal: &Principal) -> Result<Position, Problem> {
        let place = self.until.as_deref().unwrap_or("latest");
        let ended = match params::start(place, app.hub.identity())? {
            Start::Latest => app.hub.committed_end(&principal.tenant).await,
            Start::After(cursor) => {
                let reached = app.hub.reach_place(cursor.position).await;
                reached.map(|()| cursor.position)
            }
            Start::Earliest | Start::Since(_) => {
                return Err(Problem::parameter("until", "must be a cursor or latest"));
            }
        };
        ended.map_err(|why| no_end(&why, app))
    }

    /// The consumer with which it is to be compared; whoever asks has been let in as an administrator.
    async fn reached(
        &self,
        app: &App,
        principal: &Principal,
    ) -> Result<Option<(&str, Reached)>, Problem> {
        let Some(name) = self.consumer.as_deref() else {
            return Ok(None);
        };
        let reached = app.history.consumer(&principal.tenant, name).await;
        let reached = reached.map_err(|error| errors::follow(&error.into(), app.hub.identity()))?;
        let missing = || Problem::parameter("consumer", "there is none of this name");
        Ok(Some((name, reached.ok_or_else(missing)?)))
    }

    /// Where it begins; where a consumer has come to unless it is said.
    async fn after(
        &self,
        app: &App,
        principal: &Principal,
        reached: Option<&Reached>,
    ) -> Result<Position, Problem> {
        let retained = app.hub.identity().known().retained_of(&principal.tenant);
        let place = match (self.after.as_deref(), reached) {
            (None, Some(reached)) => return Ok(reached.position.max(retained)),
            (after, _) => after.unwrap_or("earliest"),
        };
        match params::start(place, app.hub.identity())? {
            Start::Earliest => Ok(retained),
            Start::After(cursor) => {
                let given = app.hub.is_given(cursor.position).await;
                given.map_err(|why| no_end(&why, app))?;
                Ok(cursor.position)
            }
            Start::Latest | Start::Since(_) => {
                Err(Problem::parameter("after", "must be a cursor or earliest"))
            }
        }
    }
}

fn no_end(why: &NoEnd, app: &App) -> Problem {
    match why {
        NoEnd::Held => errors::unavailable(
            "not all that is committed can be read yet, so it would be counted too little: an open transaction that has written events may hold the log back (GET /v1/status says which). Ask again once it has ended, or say until where",
        ),
        NoEnd::Read(error) => errors::follow(error, app.hub.identity()),
    }
}

/// `GET /v1/audit`.
///
/// # Errors
/// 400, 403, 409, 410, 429, 503.
pub async fn get(State(app): State<App>, request: Request) -> Result<Json<Committed>, Problem> {
    let (parts, _) = request.into_parts();
    let principal = identify(&app, &parts, None).await?;
    let wanted = Wanted::parse(parts.uri.query())?;
    let list = |text: &Option<String>| -> Vec<String> {
        let items = text.iter().flat_map(|text| text.split(','));
        items
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()
    };
    let (topics, subjects) = (list(&wanted.topics), list(&wanted.subjects));
    let topics = topics.iter().map(String::as_str);
    let filter = params::filter(topics, subjects.iter().map(String::as_str), &principal)?;
    if wanted.consumer.is_some() {
        let admission = Admission::of_administrator(&app, &principal, &parts.extensions);
        admit(&principal, &admission)?;
    }
    let admission = Admission::of_reader(&app, &principal, &parts.extensions);
    app.audit.read(&principal, Doing::Read, &filter);
    let reading = Box::pin(reading(&app, &principal, &admission, filter, &wanted));
    while_held(&app, &principal, reading).await.map(Json)
}

/// Retention that ran elsewhere is heard of when a page is asked for: a consumer is compared once more then.
async fn reading(
    app: &App,
    principal: &Principal,
    admission: &Admission,
    filter: Filter,
    wanted: &Wanted,
) -> Result<Committed, Problem> {
    // The end first: what a consumer passes meanwhile is not missing.
    let until = wanted.until(app, principal).await?;
    let reached = wanted.reached(app, principal).await?;
    let is_by_consumer = wanted.after.is_none() && reached.is_some();
    let after = async || {
        let reached = reached.as_ref().map(|(_, reached)| reached);
        let after = wanted.after(app, principal, reached).await?;
        Ok::<_, Problem>((after, if until.seq < after.seq { after } else { until }))
    };
    let first = committed(
        app,
        principal,
        admission,
        filter.clone(),
        (after().await?, reached),
    )
    .await;
    match first {
        Err(problem) if is_by_consumer && problem.kind == Kind::CursorExpired => {
            committed(app, principal, admission, filter, (after().await?, reached)).await
        }
        first => first,
    }
}

async fn committed(
    app: &App,
    principal: &Principal,
    admission: &Admission,
    filter: Filter,
    ((after, until), reached): ((Position, Position), Option<(&str, Reached)>),
) -> Result<Committed, Problem> {
    let began = Instant::now();
    let identity = app.hub.identity();
    let mut query = Query {
        tenant: principal.tenant.clone(),
        filter,
        after,
        up_to: until,
        limit: PAGE_EVENTS_MAX,
    };
    let (mut all, mut intervals) = (IdsDigest::default(), Vec::new());
    let mut consumer = reached.map(|(name, reached)| Consumer {
        name: name.to_owned(),
        cursor: identity.encode(reached.position),
        is_paused: reached.is_paused,
        lost_before: None,
        missing: Vec::new(),
    });
    let mut has_more = after.seq < until.seq;
    while has_more && intervals.len() < INTERVALS_MAX && began.elapsed() < READING_MAX {
        match admission.take(Quantity::Reads, 1) {
            // What was read is an answer.
            Err(_) if !intervals.is_empty() => break,
            taken => taken?,
        }
        let page = app.history.page(&query).await;
        let page = page.map_err(|error| errors::follow(&error.into(), identity))?;
        has_more = page.has_more;
        // At the end of what was asked for, so that whoever goes on does so there.
        let through = if has_more { page.through } else { until };
        let ids = ids(&page)?;
        let mut digest = IdsDigest::default();
        for id in &ids {
            digest.add(id);
        }
        if let (Some(consumer), Some((_, reached))) = (&mut consumer, reached) {
            let passed = reached.position.seq;
            let events = page.events.iter().zip(ids);
            let missing = events.filter(|(event, _)| event.position.seq > passed);
            let room = MISSING_MAX.saturating_sub(consumer.missing.len());
            consumer
                .missing
                .extend(missing.take(room).map(|(_, id)| id));
        }
        all.merge(&digest);
        intervals.push(Interval {
            after: identity.encode(query.after),
            through: identity.encode(through),
            count: digest.count,
            digest: digest.to_string(),
        });
        query.after = through;
    }
    if let (Some(consumer), Some((_, reached))) = (&mut consumer, reached) {
        // As of now: it may have been heard of with a page.
        let retained = identity.known().retained_of(&principal.tenant);
        let is_lost = reached.position.seq < retained.seq;
        consumer.lost_before = is_lost.then(|| identity.encode(retained));
    }
    Ok(Committed {
        after: identity.encode(after),
        through: identity.encode(query.after),
        until: identity.encode(until),
        has_more,
        count: all.count,
        digest: all.to_string(),
        intervals,
        consumer,
    })
}

fn ids(page: &Page) -> Result<Vec<String>, Problem> {
    let events = page.events.iter();
    events
        .map(|event| {
            let named: Named = serde_json::from_slice(&event.json)
                .map_err(|_| Problem::new(Kind::Internal, "an event of the log has no id"))?;
            Ok(named.id)
        })
        .collect()
}
