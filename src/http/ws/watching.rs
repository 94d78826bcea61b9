//! The subscriptions of a socket to `system.*`: what comes of the server itself, not of the log.
//!
//! # Invariants
//! - Administrators alone have one, whatever topics they are granted; each counts as any subscription does.
//! - No cursor, nothing to resume: who comes back begins with the next second.

use std::sync::Arc;

use serde_json::{Value, json};

use super::frame::Subscribe;
use crate::access::Principal;
use crate::access::limits::Place;
use crate::event::limits::NAME_BYTES_MAX;
use crate::event::{Filter, TopicPattern};
use crate::http::administrator;
use crate::http::admission::Admission;
use crate::http::app::App;
use crate::http::audit::Doing;
use crate::http::problem::Problem;
use crate::http::system::{ALL, Beat, Beats, HEALTH, METRICS};

/// The client's name for it, and what it wants.
#[derive(Debug)]
struct Watch {
    id: String,
    topics: Vec<&'static str>,
    place: Place,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watching {
    beats: Option<Beats>,
    each: Vec<Watch>,
}

/// Whether the frame asks for the server's own topics, which go by themselves.
///
/// # Errors
/// 400 if it asks for others as well.
pub fn is_asked_for(wanted: &Subscribe) -> Result<bool, Problem> {
    let own = |topic: &&String| [ALL, HEALTH, METRICS].contains(&topic.as_str());
    match wanted.topics.iter().filter(own).count() {
        0 => Ok(false),
        own if own == wanted.topics.len() => Ok(true),
        _ => Err(Problem::parameter(
            "topics",
            "system.* goes by itself: subscribe to it under an id of its own",
        )),
    }
}

impl Watching {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether one has this name.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.each.iter().any(|one| one.id == id)
    }

    /// Begins one.
    ///
    /// # Errors
    /// What the client gets as an error frame.
    pub fn begin(
        &mut self,
        app: &App,
        principal: &Principal,
        admission: &Admission,
        wanted: Subscribe,
    ) -> Result<(), Problem> {
        if wanted.id.is_empty() || wanted.id.len() > NAME_BYTES_MAX {
            let range = format!("must be 1 to {NAME_BYTES_MAX} bytes");
            return Err(Problem::parameter("id", range));
        }
        for (field, is_given) in [
            ("subjects", !wanted.subjects.is_empty()),
            ("after", wanted.after.is_some()),
            ("conflate_ms", wanted.conflate_ms > 0),
            ("with_state", wanted.with_state),
        ] {
            if is_given {
                return Err(Problem::parameter(field, "does not go with system.*"));
            }
        }
        administrator::admit(principal, admission)?;
        let place = admission.subscribe()?;
        let is_wanted = |topic: &&str| wanted.topics.iter().any(|one| one == ALL || one == *topic);
        let topics = [HEALTH, METRICS].into_iter().filter(is_wanted).collect();
        let patterns = wanted.topics.iter().map(|text| TopicPattern::parse(text));
        let patterns = patterns.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        if let Ok(filter) = Filter::new(patterns, Vec::new()) {
            app.audit.read(principal, Doing::Subscribed, &filter);
        }
        if self.beats.is_none() {
            self.beats = Some(app.system.listen());
        }
        self.each.push(Watch {
            id: wanted.id,
            topics,
            place,
        });
        Ok(())
    }

    /// Ends the one of this name.
    pub fn end(&mut self, id: &str) {
        self.each.retain(|one| one.id != id);
        if self.each.is_empty() {
            self.beats = None;
        }
    }

    /// Ends all; their names.
    pub fn end_all(&mut self) -> Vec<String> {
        self.beats = None;
        self.each.drain(..).map(|one| one.id).collect()
    }

    /// Counts them as another credential's, of the same tenant.
    ///
    /// # Errors
    /// 429 if that has as many as it may.
    pub fn move_to(&mut self, admission: &Admission) -> Result<(), Problem> {
        let mut each = self.each.iter_mut();
        each.try_for_each(|one| admission.take_over(&mut one.place, "subscriptions"))
    }

    /// Waits for the next beat, for ever if there is no subscription. Dropping it loses nothing.
    pub async fn beat(&mut self) -> Arc<Beat> {
        if let Some(beats) = &mut self.beats {
            while beats.changed().await.is_ok() {
                if let Some(beat) = beats.borrow_and_update().clone() {
                    return beat;
                }
            }
        }
        std::future::pending().await
    }

    /// A frame for each subscription.
    #[must_use]
    pub fn frames(&self, beat: &Beat, principal: &Principal) -> Vec<Value> {
        let frame = |one: &Watch| {
            let events = beat.events(&one.topics, &principal.tenant);
            json!({"type": "events", "id": one.id, "events": events})
        };
        self.each.iter().map(frame).collect()
    }
}
