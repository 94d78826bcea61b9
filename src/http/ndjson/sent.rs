//! A chunk on its way to the log, and each line's answer.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};

use super::Chunk;
use crate::access::limits::Quantity;
use crate::access::{Lease, Principal};
use crate::event::{NewEvent, Topic};
use crate::http::admission::Admission;
use crate::http::app::App;
use crate::http::budget::Share;
use crate::http::caller;
use crate::http::errors;
use crate::http::problem::Problem;
use crate::log::{self, AppendOptions, Identity};

type Stored = Result<log::append::Answers, Problem>;
type Appending<'a> = BoxFuture<'a, Stored>;

/// A chunk on its way to the log.
pub(super) struct Sent<'a> {
    /// The number of each line, and why it is no event.
    pub(super) lines: Vec<(u64, Option<Problem>)>,
    /// Of the lines that are events. Not on its way before it is first polled.
    pub(super) answers: Pin<Box<MaybeDone<Appending<'a>>>>,
    /// What it counts for until it is reported.
    _share: Share,
}

impl<'a> Sent<'a> {
    /// A chunk that waits for its rate first: that of `bytes` and of its events, for as long as the lease lasts. From then on it
    /// is stored, and the audit told, whoever gives it up.
    pub(super) fn new(
        app: &'a App,
        principal: &Principal,
        (admission, lease, bytes, options): (&'a Admission, Arc<Lease>, usize, AppendOptions),
        chunk: Chunk,
        share: Share,
    ) -> Self {
        let mut events = Vec::with_capacity(chunk.len());
        let mut lines = Vec::with_capacity(chunk.len());
        for (line, event) in chunk {
            match event {
                Ok(event) => {
                    events.push(event);
                    lines.push((line, None));
                }
                Err(problem) => lines.push((line, Some(problem))),
            }
        }
        let count = events.len();
        let topics: Vec<Topic> = events
            .iter()
            .map(|event: &NewEvent| event.topic.clone())
            .collect();
        let appending = app.appender.append_each(&admission.tenant, events, options);
        let (own, principal) = (app.clone(), principal.clone());
        let append = async move {
            let appended = appending.await;
            let answers = appended.map_err(|error| errors::append(&error, own.hub.identity()))?;
            own.audit.appended(&principal, stored(&topics, &answers));
            Ok(answers)
        };
        let append = async move {
            let waiting = async {
                admission.wait_for(Quantity::Bytes, bytes).await?;
                admission.wait_for(Quantity::Events, count).await
            };
            let waited = lease.run(waiting).await;
            waited.unwrap_or_else(|denied| Err(caller::denied(&denied)))?;
            app.tasks.to_the_end(append).await
        };
        let answers = Box::pin(maybe_done(append.boxed()));
        Self {
            lines,
            answers,
            _share: share,
        }
    }
}

type Committed = Option<Stored>;

/// Whether nothing speaks against sending the next chunk. After a failure it may have to wait, or the stream to end.
pub(super) fn are_stored(committed: Option<&Stored>) -> bool {
    committed.is_some_and(|answers| {
        answers
            .as_ref()
            .is_ok_and(|answers| answers.iter().all(Result::is_ok))
    })
}

/// The topics of those that were stored.
fn stored<'a>(
    topics: &'a [Topic],
    answers: &'a log::append::Answers,
) -> impl Iterator<Item = &'a Topic> {
    let is_new = |answer: &Result<log::Appended, log::AppendError>| {
        answer.as_ref().is_ok_and(|one| !one.duplicate)
    };
    answers
        .iter()
        .zip(topics)
        .filter(move |(answer, _)| is_new(answer))
        .map(|(_, topic)| topic)
}

/// Puts every line's answer into its place. What was held and is not stored is `denied` to whoever may write no more.
pub(super) fn settle(
    lines: Vec<(u64, Option<Problem>)>,
    committed: Committed,
    denied: Option<&Problem>,
    identity: &Identity,
) -> Vec<(u64, Result<log::Appended, Problem>)> {
    let unless_denied = |problem: Problem| match denied {
        Some(denied) if problem.kind.is_transient() => denied.clone(),
        _ => problem,
    };
    let unanswered = || errors::unavailable("the log did not answer for this line");
    let mut answers = match committed.transpose() {
        Ok(answers) => answers.unwrap_or_default().into_iter(),
        Err(problem) => {
            let problem = unless_denied(problem);
            return lines
                .into_iter()
                .map(|(line, own)| (line, Err(own.unwrap_or_else(|| problem.clone()))))
                .collect();
        }
    };
    lines
        .into_iter()
        .map(|(line, own)| {
            let outcome = match own {
                Some(problem) => Err(problem),
                None => match answers.next() {
                    Some(Ok(appended)) => Ok(appended),
                    Some(Err(error)) => Err(unless_denied(errors::append(&error.at(0), identity))),
                    None => Err(unless_denied(unanswered())),
                },
            };
            (line, outcome)
        })
        .collect()
}
