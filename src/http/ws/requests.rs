//! What a client asks of its socket: subscriptions, appends, commands, a new credential.
//!
//! # Invariants
//! - A frame that cannot be understood is answered and passed over; only what breaks the protocol ends the socket.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::Message;
use futures_util::FutureExt as _;
use serde_json::json;
use serde_json::value::RawValue;

use super::close::Close;
use super::frame::{self, ClientFrame};
use super::socket::{Ended, NO_CODE, Socket};
use super::subscription::{self, Subscription};
use super::watching;
use crate::access::limits::Quantity;
use crate::access::{Credential, Denied, Policy, Principal};
use crate::event::encode::push_string;
use crate::event::limits::{
    RATE_REFUSALS_MAX, SESSION_NAME_BYTES, SOCKET_NAMES_MAX, SUBSCRIPTIONS_MAX,
};
use crate::event::{Filter, NewEvent};
use crate::http::admission::Admission;
use crate::http::append::{self, Answer};
use crate::http::caller;
use crate::http::errors;
use crate::http::holding;
use crate::http::ingest;
use crate::http::policy;
use crate::http::problem::{Kind, Problem};
use crate::http::sessions::Full;
use crate::http::status;
use crate::log::AppendOptions;

impl Socket {
    /// Does what a frame asks for.
    pub(super) async fn hear(&mut self, message: Message) -> Result<(), Ended> {
        self.heard_at = Instant::now();
        match message {
            Message::Close(frame) => {
                self.heard_code = frame.map_or(NO_CODE, |frame| frame.code);
                return Err(self.answer_close().await);
            }
            // The protocol's own answer: taken before more is read, else who never reads piles them up here.
            Message::Ping(_) => return self.flush().await,
            _ => {}
        }
        let frame = match frame::read(self.encoding, &message) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) => {
                let problem = Problem::new(Kind::Malformed, error.to_string());
                return self.send(&frame::error(&problem, None, None)).await;
            }
        };
        if !matches!(frame, ClientFrame::Ping { .. }) {
            self.session.touch();
        }
        match frame {
            ClientFrame::Subscribe(wanted) => Box::pin(self.subscribe(*wanted)).await,
            ClientFrame::Unsubscribe { id } => {
                self.forget(&id);
                self.watching.end(&id);
                let _ = self.count();
                self.send(&json!({"type": "unsubscribed", "id": id})).await
            }
            ClientFrame::Append {
                reference,
                events,
                idempotency_key,
            } => {
                let key = idempotency_key.as_deref();
                // In a box: an idle socket need not hold room for it.
                Box::pin(self.append(reference, events.get(), key)).await
            }
            ClientFrame::Command {
                reference,
                id,
                subject,
                action,
                params,
            } => {
                let event = command(&subject, id.as_deref(), &action, params.as_deref());
                Box::pin(self.append(reference, &event, None)).await
            }
            ClientFrame::Ping { timestamp } => {
                match frame::pong(self.encoding, timestamp.as_deref()) {
                    Ok(pong) => self.send_message(pong).await,
                    Err(problem) => self.send(&frame::error(&problem, None, None)).await,
                }
            }
            ClientFrame::Auth { token } => Box::pin(self.authenticate(&token)).await,
            ClientFrame::GetStatus {} => {
                let (app, principal) = (self.app.clone(), self.principal.clone());
                let admission = self.admission.clone();
                let work = async move {
                    let frame = status::frame(&app, &principal, &admission).await;
                    frame.unwrap_or_else(|problem| frame::error(&problem, None, None))
                };
                self.work.push(work.boxed());
                Ok(())
            }
        }
    }

    async fn subscribe(&mut self, wanted: frame::Subscribe) -> Result<(), Ended> {
        let id = wanted.id.clone();
        let begun = match self.room_for(&wanted) {
            Err(problem) => Err(problem),
            Ok(()) => match watching::is_asked_for(&wanted) {
                Err(problem) => Err(problem),
                Ok(true) => self.watch(wanted).map(|()| None),
                Ok(false) => self.follow(wanted).await?.map(Some),
            },
        };
        match begun {
            Ok(None) => {
                let _ = self.count();
                self.send(&json!({"type": "subscribed", "id": id})).await
            }
            Ok(Some(one)) => {
                let cursor = self.app.hub.identity().encode(one.after());
                self.subscriptions.push_back(one);
                if self.count().is_err() {
                    self.subscriptions.pop_back();
                    let problem = errors::full();
                    return self.send(&frame::error(&problem, None, Some(&id))).await;
                }
                self.send(&json!({"type": "subscribed", "id": id, "cursor": cursor}))
                    .await
            }
            Err(problem) => self.send(&frame::error(&problem, None, Some(&id))).await,
        }
    }

    /// Whether a socket may have one more, of this name.
    fn room_for(&self, wanted: &frame::Subscribe) -> Result<(), Problem> {
        let is_taken = |one: &Subscription| one.id == wanted.id;
        if self.subscriptions.iter().any(is_taken) || self.watching.has(&wanted.id) {
            return Err(Problem::parameter("id", "is in use: unsubscribe first"));
        }
        let count = self.subscriptions.len().saturating_add(self.watching.len());
        let detail = if count >= SUBSCRIPTIONS_MAX {
            format!("a socket has at most {SUBSCRIPTIONS_MAX} subscriptions")
        } else if self.names().saturating_add(wanted.names()) > SOCKET_NAMES_MAX {
            format!(
                "the subscriptions of a socket name at most {SOCKET_NAMES_MAX} topics and subjects"
            )
        } else {
            return Ok(());
        };
        Err(Problem::new(Kind::InvalidParameter, detail))
    }

    fn watch(&mut self, wanted: frame::Subscribe) -> Result<(), Problem> {
        let (app, principal, admission) = (&self.app, &self.principal, &self.admission);
        self.watching.begin(app, principal, admission, wanted)
    }

    async fn follow(
        &mut self,
        wanted: frame::Subscribe,
    ) -> Result<Result<Subscription, Problem>, Ended> {
        let beginning = subscription::begin(&self.app, &self.principal, wanted, &self.wake);
        match self.waiting(beginning).await {
            Ok(begun) => Ok(begun),
            Err(over) => Err(self.end(over).await),
        }
    }

    /// Ends the subscription of this name, and what is read for it.
    fn forget(&mut self, id: &str) {
        self.subscriptions.retain(|one| one.id != id);
        if self.history.as_ref().is_some_and(|one| one.id() == id) {
            self.history = None;
        }
    }

    /// Says what the subscriptions hold.
    pub(super) fn count(&self) -> Result<(), Full> {
        let count = self.subscriptions.len().saturating_add(self.watching.len());
        let bytes = size_of::<Subscription>().saturating_mul(count);
        let names = self.names().saturating_mul(SESSION_NAME_BYTES);
        self.session.subscribe(count, bytes.saturating_add(names))
    }

    /// Topics and subjects of all subscriptions.
    fn names(&self) -> usize {
        let names = |filter: &Filter| {
            filter
                .topics()
                .len()
                .saturating_add(filter.subjects().len())
        };
        self.subscriptions
            .iter()
            .map(|one| names(&one.filter))
            .sum()
    }

    /// Reads events that the caller may append now. What costs much to check is checked as long as the credential lasts, and
    /// the server runs.
    async fn admit(
        &mut self,
        policy: Result<Policy, Problem>,
        events: &str,
        key: Option<&str>,
    ) -> Result<Vec<NewEvent>, Problem> {
        self.admission.take(Quantity::Bytes, events.len())?;
        let mut events = ingest::decode_text(events, &self.app.ingest)?.events;
        self.admission.take(Quantity::Events, events.len())?;
        if let Some(key) = key {
            ingest::assign_ids(&mut events, key, 0);
        }
        let policy = policy?;
        let checking = self.lease.run(policy::admit(&self.app, &policy, events));
        let checked = self.app.tasks.token().run_until_cancelled(checking).await;
        checked
            .ok_or_else(|| errors::unavailable("the server is restarting"))?
            .unwrap_or_else(|denied| Err(caller::denied(&denied)))
    }

    /// Stores events while the socket goes on, in the order of its frames; the answer comes when they are committed. Ends
    /// the socket of who goes on regardless of its rate.
    async fn append(
        &mut self,
        reference: Option<String>,
        events: &str,
        key: Option<&str>,
    ) -> Result<(), Ended> {
        // Before the work is begun: what waits in it would lose its place.
        let policy = match self.waiting(policy::of(&self.app, &self.principal)).await {
            Ok(policy) => policy,
            Err(over) => return Err(self.end(over).await),
        };
        let decoded = self.admit(policy, events, key).await;
        match &decoded {
            Err(problem) if problem.kind == Kind::RateLimited => {
                self.refusals = self.refusals.saturating_add(1);
                if self.refusals > RATE_REFUSALS_MAX {
                    return Err(Some(Close::RateLimited));
                }
            }
            _ => self.refusals = 0,
        }
        let (app, principal) = (self.app.clone(), self.principal.clone());
        let lease = Arc::clone(&self.lease);
        let options = AppendOptions {
            sequence: Some(self.sequence),
            leave: Some(holding::leave(&self.app, lease, false)),
            ..AppendOptions::default()
        };
        let work = async move {
            let stored = match decoded {
                Ok(events) => append::append(&app, &principal, events, options).await,
                Err(problem) => Err(problem),
            };
            match stored {
                Ok(appended) => {
                    let identity = app.hub.identity();
                    let answers: Vec<Answer> = appended
                        .iter()
                        .map(|one| Answer::new(one, identity))
                        .collect();
                    let mut frame = json!({"type": "appended", "events": answers});
                    if let (Some(reference), Some(frame)) = (reference, frame.as_object_mut()) {
                        frame.insert("ref".into(), reference.into());
                    }
                    frame
                }
                Err(problem) => frame::error(&problem, reference.as_deref(), None),
            }
        };
        self.work.push(work.boxed());
        Ok(())
    }

    async fn authenticate(&mut self, token: &str) -> Result<(), Ended> {
        let access = &self.app.access;
        // A key set that is slow to answer keeps nobody here whose credential ends meanwhile.
        let asking = async {
            let principal = access.identify(Some(token)).await?;
            let lease = access.lease(&principal).await?;
            Ok::<_, Denied>((principal, lease))
        };
        let known = match self.waiting(asking).await {
            Ok(known) => known,
            Err(over) => return Err(self.end(over).await),
        };
        match known {
            Ok((principal, lease)) if self.is_of(&principal) => {
                self.move_to(Admission::for_socket(&self.app, &principal))
                    .map_err(|_| Some(Close::RateLimited))?;
                (self.principal, self.lease) = (principal, Arc::new(lease));
                let lost: Vec<String> = self
                    .subscriptions
                    .iter()
                    .filter(|one| self.principal.may_read(&one.filter).is_err())
                    .map(|one| one.id.clone())
                    .collect();
                for id in lost {
                    self.forget(&id);
                    let problem =
                        Problem::new(Kind::ForbiddenTopic, "the new credential may not read this");
                    self.send(&frame::error(&problem, None, Some(&id))).await?;
                }
                if !self.principal.may_administer() {
                    for id in self.watching.end_all() {
                        let problem = Problem::new(
                            Kind::Forbidden,
                            "the new credential is no administrator's",
                        );
                        self.send(&frame::error(&problem, None, Some(&id))).await?;
                    }
                }
                self.send(&json!({"type": "notice", "level": "info", "code": "authenticated", "message": "the new credential is in force"}))
                    .await
            }
            Ok(_) => Err(Some(Close::Policy(
                "a connection keeps its tenant and its holder: the new credential bears another name",
            ))),
            // Nothing is known against it: the old one stays in force.
            Err(denied @ Denied::Unavailable) => {
                let problem = caller::denied(&denied);
                self.send(&frame::error(&problem, None, None)).await
            }
            Err(_) => Err(Some(Close::Unauthenticated(
                "the new credential is not valid",
            ))),
        }
    }
}

impl Socket {
    /// Whether this is who holds it: a new credential, not somebody else's. In development nobody holds it yet who came
    /// without one.
    fn is_of(&self, principal: &Principal) -> bool {
        let own = &self.principal;
        let is_nobodys = own.credential == Credential::None;
        own.tenant == principal.tenant && (own.name == principal.name || is_nobodys)
    }

    /// Counts what it holds as the new credential's: its seat, its subscriptions, and what they read. Who has no room for all of it
    /// ends the socket, so what has moved by then is given back.
    fn move_to(&mut self, admission: Admission) -> Result<(), Problem> {
        if admission.is_of_same_account(&self.admission) {
            return Ok(());
        }
        self.seat.move_to(&admission)?;
        for one in &mut self.subscriptions {
            one.move_to(&admission)?;
        }
        self.watching.move_to(&admission)?;
        self.admission = admission;
        Ok(())
    }
}

/// The event of a command. The parameters stay the text they came as: a value in between would round their numbers.
fn command(subject: &str, id: Option<&str>, action: &str, params: Option<&RawValue>) -> String {
    let mut out = String::from(r#"{"topic":"agent.command.requested","subject":"#);
    push_string(&mut out, subject);
    if let Some(id) = id {
        out.push_str(",\"id\":");
        push_string(&mut out, id);
    }
    out.push_str(",\"data\":{\"action\":");
    push_string(&mut out, action);
    out.push_str(",\"params\":");
    out.push_str(params.map_or("null", RawValue::get));
    out.push_str("}}");
    out
}
