//! Ids that come more than once in one request.
//!
//! # Invariants
//! - What is sent to the log holds no id twice; every member of the request is answered nonetheless, in its place.

use std::collections::HashMap;

use uuid::Uuid;

use super::append::{Answers, Appended};
use super::error::AppendError;
use crate::event::{EventId, NewEvent, Seq};

/// Where the answer of a member of the request comes from.
#[derive(Debug)]
enum Place {
    /// The next of the log's answers.
    Own,
    /// It repeats the member whose answer is this one.
    Repeats(usize),
    /// It was refused before the log was asked.
    Refused(AppendError),
}

/// The members of a request, each id once.
#[derive(Debug, Default)]
pub(super) struct Unique {
    events: Vec<NewEvent>,
    ids: Vec<EventId>,
    expected: Vec<Option<Seq>>,
    by_id: HashMap<EventId, usize>,
    places: Vec<Place>,
}

impl Unique {
    /// Adds a member, stored once with an earlier one of the same id and content. Given back if the content differs:
    /// which of the two is the one that the log knows, only the log can say.
    pub(super) fn add(
        &mut self,
        event: NewEvent,
        expected: Option<Seq>,
    ) -> Result<(), Box<NewEvent>> {
        let id = event.id.clone().unwrap_or_else(new_id);
        match self.by_id.get(&id) {
            None => {
                self.by_id.insert(id.clone(), self.events.len());
                self.events.push(event);
                self.ids.push(id);
                self.expected.push(expected);
                self.places.push(Place::Own);
            }
            Some(&first) => {
                let is_same = self
                    .events
                    .get(first)
                    .is_some_and(|first| first.has_same_content(&event));
                if !is_same {
                    return Err(Box::new(event));
                }
                self.places.push(Place::Repeats(first));
            }
        }
        Ok(())
    }

    /// Adds a member that the log need not be asked about.
    pub(super) fn refuse(&mut self, error: AppendError) {
        self.places.push(Place::Refused(error));
    }

    /// What the log is to store, and how to answer for all.
    pub(super) fn split(self) -> (Vec<NewEvent>, Vec<EventId>, Vec<Option<Seq>>, Places) {
        (self.events, self.ids, self.expected, Places(self.places))
    }
}

fn new_id() -> EventId {
    EventId::from(Uuid::now_v7())
}

/// The places of a request's members.
#[derive(Debug)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// Puts the log's answers into their places.
    pub(super) fn weave(self, answers: Answers) -> Answers {
        if self.0.iter().all(|place| matches!(place, Place::Own)) {
            return answers;
        }
        let mut own = answers.into_iter();
        // Where in `woven` each of the log's answers stands.
        let mut own_at = Vec::new();
        let mut woven = Answers::with_capacity(self.0.len());
        for place in self.0 {
            let answer = match place {
                Place::Own => {
                    own_at.push(woven.len());
                    own.next().unwrap_or(Err(AppendError::Skipped))
                }
                Place::Refused(error) => Err(error),
                Place::Repeats(first) => match own_at.get(first).and_then(|at| woven.get(*at)) {
                    Some(Ok(first)) => Ok(Appended {
                        duplicate: true,
                        ..first.clone()
                    }),
                    Some(Err(error)) => Err(error.twin()),
                    None => Err(AppendError::Skipped),
                },
            };
            let at = woven.len();
            woven.push(answer.map_err(|error| error.at(at)));
        }
        woven
    }
}
