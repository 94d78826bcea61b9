//! The life of one WebSocket.
//!
//! # Invariants
//! - One task, one frame at a time: what the client does not take is not read from the log. It costs its cursors.
//! - A socket that does not take a frame for `SEND_TIMEOUT`, or shows no sign of life for two heartbeats, is closed with
//!   a code that tells it to resume.
//! - A connection lives no longer than its credential.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use rand::RngExt as _;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::close::Close;
use super::frame::{self, ClientFrame, Encoding};
use super::subscription::{self, Subscription};
use crate::access::Principal;
use crate::event::limits::{
    DATA_BYTES_MAX, FRAME_BYTES_MAX, PAGE_EVENTS_MAX, SEND_TIMEOUT, SOCKET_APPENDS_MAX,
    SUBSCRIPTIONS_MAX, WS_HEARTBEAT,
};
use crate::feed::FollowError;
use crate::http::app::App;
use crate::http::append::{self, Answer};
use crate::http::errors;
use crate::http::ingest;
use crate::http::problem::{Kind, Problem};
use crate::http::status;
use crate::log::ReadError;

/// Clients are told to come back within this time after a restart, each at its own moment.
const RESTART_SPREAD_MS: u64 = 5_000;

/// Ends the socket: with a code, or because it is gone.
type Ended = Option<Close>;

/// See the module.
pub struct Socket {
    app: App,
    principal: Principal,
    encoding: Encoding,
    socket: WebSocket,
    subscriptions: VecDeque<Subscription>,
    wake: Arc<Notify>,
    work: FuturesUnordered<BoxFuture<'static, serde_json::Value>>,
    heard_at: Instant,
}

impl Socket {
    /// A socket that has just been opened.
    #[must_use]
    pub fn new(app: App, principal: Principal, encoding: Encoding, socket: WebSocket) -> Self {
        Self {
            app,
            principal,
            encoding,
            socket,
            subscriptions: VecDeque::new(),
            wake: Arc::new(Notify::new()),
            work: FuturesUnordered::new(),
            heard_at: Instant::now(),
        }
    }

    /// Serves it until it ends.
    pub async fn run(mut self) {
        let Err(ended) = self.serve().await;
        if let Some(close) = ended {
            let frame = CloseFrame::from(close);
            let _ = tokio::time::timeout(
                Duration::from_secs(1),
                self.socket.send(Message::Close(Some(frame))),
            )
            .await;
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Ended> {
        self.send(&self.welcome()).await?;
        let stop = self.app.tasks.token().clone();
        // Spread, so that ten thousand idle sockets do not beat in step.
        let phase = WS_HEARTBEAT.mul_f64(rand::rng().random_range(0.1..1.0));
        let first = tokio::time::Instant::now()
            .checked_add(phase)
            .unwrap_or_else(tokio::time::Instant::now);
        let mut heartbeat = tokio::time::interval_at(first, WS_HEARTBEAT);
        loop {
            let is_behind = self.subscriptions.iter().any(|one| one.follower.has_news());
            let expiry = self.until_expiry();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Some(self.say_restarting().await?)),
                () = tokio::time::sleep_until(expiry) => return Err(Some(Close::Unauthenticated)),
                _ = heartbeat.tick() => self.beat().await?,
                Some(answer) = self.work.next(), if !self.work.is_empty() => self.send(&answer).await?,
                // While too much of its work is under way the client is not listened to.
                message = self.socket.recv(), if self.work.len() < SOCKET_APPENDS_MAX => match message {
                    Some(Ok(message)) => self.hear(message).await?,
                    Some(Err(_)) | None => return Err(None),
                },
                () = async {}, if is_behind => self.deliver().await?,
                () = self.wake.notified(), if !is_behind => {}
            }
        }
    }

    fn welcome(&self) -> serde_json::Value {
        json!({
            "type": "welcome",
            "connection_id": Uuid::now_v7().to_string(),
            "tenant": self.principal.tenant.as_str(),
            "cursor": self.app.hub.identity().encode(self.app.hub.head()),
            "heartbeat_s": WS_HEARTBEAT.as_secs(),
            "limits": {
                "frame_bytes": FRAME_BYTES_MAX,
                "data_bytes": self.app.ingest.data_bytes.min(DATA_BYTES_MAX.max(self.app.ingest.data_bytes)),
                "append_events": self.app.ingest.array_events,
                "appends_in_flight": SOCKET_APPENDS_MAX,
                "subscriptions": SUBSCRIPTIONS_MAX,
                "page_events": PAGE_EVENTS_MAX,
            },
        })
    }

    fn until_expiry(&self) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(30 * 86_400);
        let left = self.principal.expires_at.map_or(FAR, |at| {
            let ends = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at));
            ends.and_then(|ends| ends.duration_since(SystemTime::now()).ok())
                .unwrap_or_default()
                .min(FAR)
        });
        tokio::time::Instant::now()
            .checked_add(left)
            .unwrap_or_else(tokio::time::Instant::now)
    }

    async fn say_restarting(&mut self) -> Result<Close, Ended> {
        let retry_after_ms = rand::rng().random_range(0..RESTART_SPREAD_MS);
        let message = "the server is restarting: come back with your cursors";
        let notice = json!({"type": "notice", "level": "warn", "code": "restarting", "message": message, "retry_after_ms": retry_after_ms});
        self.send(&notice).await?;
        Ok(Close::Restarting)
    }

    /// Shows that the server is there, where every subscription stands, and looks whether the client is.
    async fn beat(&mut self) -> Result<(), Ended> {
        if self.heard_at.elapsed() > WS_HEARTBEAT.saturating_mul(2) {
            return Err(Some(Close::HeartbeatMissed));
        }
        self.send_message(Message::Ping(bytes::Bytes::new()))
            .await?;
        for index in 0..self.subscriptions.len() {
            let Some(one) = self.subscriptions.get_mut(index) else {
                break;
            };
            if one.follower.has_news() {
                continue;
            }
            // Nothing to deliver, so this only moves the place up to the present.
            let before = one.follower.after();
            let Ok(batch) = one.follower.read(1).await else {
                continue;
            };
            let id = one.id.clone();
            let cursor = self.app.hub.identity().encode(batch.through);
            if !batch.events.is_empty() {
                self.send_message(frame::events(self.encoding, &id, &batch.events, &cursor))
                    .await?;
            } else if batch.through != before {
                self.send(&json!({"type": "cursor", "id": id, "cursor": cursor}))
                    .await?;
            }
        }
        Ok(())
    }

    /// Delivers one page of the next subscription that has news.
    async fn deliver(&mut self) -> Result<(), Ended> {
        let Some(index) = self
            .subscriptions
            .iter()
            .position(|one| one.follower.has_news())
        else {
            return Ok(());
        };
        let Some(mut one) = self.subscriptions.remove(index) else {
            return Ok(());
        };
        let read = one.follower.read(PAGE_EVENTS_MAX).await;
        let identity = self.app.hub.identity().clone();
        match read {
            Ok(batch) => {
                let cursor = identity.encode(batch.through);
                if let Some(from) = batch.skipped_from {
                    let from = identity.encode(from);
                    self.send(&json!({"type": "gap", "id": one.id, "from": from, "to": cursor, "reason": "lag"})).await?;
                }
                if !batch.events.is_empty() {
                    self.send_message(frame::events(
                        self.encoding,
                        &one.id,
                        &batch.events,
                        &cursor,
                    ))
                    .await?;
                }
                if batch.is_caught_up && !one.is_live {
                    one.is_live = true;
                    self.send(&json!({"type": "live", "id": one.id, "cursor": cursor}))
                        .await?;
                }
            }
            Err(FollowError::Lagging) => {
                return Err(Some(Close::Overloaded(
                    "a subscription fell too far behind",
                )));
            }
            Err(FollowError::Read(error)) => match error.as_ref() {
                ReadError::Expired { .. } => {
                    let (from, to) = one.follower.skip_to_earliest();
                    let (from, to) = (identity.encode(from), identity.encode(to));
                    self.send(&json!({"type": "gap", "id": one.id, "from": from, "to": to, "reason": "retention"})).await?;
                }
                ReadError::Unavailable(_) => {
                    // Tried again: the socket stays, the place too. Not at once.
                    crate::tasks::pause(Duration::from_millis(250)).await;
                }
                ReadError::Ahead | ReadError::Internal(_) => {
                    let problem = errors::follow(&FollowError::Read(error), &identity);
                    self.send(&frame::error(&problem, None, Some(&one.id)))
                        .await?;
                    return Ok(());
                }
            },
        }
        // At the end of the line: the others are served first next time.
        self.subscriptions.push_back(one);
        Ok(())
    }

    async fn hear(&mut self, message: Message) -> Result<(), Ended> {
        self.heard_at = Instant::now();
        if matches!(message, Message::Close(_)) {
            return Err(None);
        }
        if frame::bytes(&message) > FRAME_BYTES_MAX {
            return Err(Some(Close::TooLarge));
        }
        let frame = match frame::read(self.encoding, &message) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) => {
                let problem = Problem::new(Kind::Malformed, error.to_string());
                return self.send(&frame::error(&problem, None, None)).await;
            }
        };
        match frame {
            ClientFrame::Subscribe(wanted) => self.subscribe(*wanted).await,
            ClientFrame::Unsubscribe { id } => {
                self.subscriptions.retain(|one| one.id != id);
                self.send(&json!({"type": "unsubscribed", "id": id})).await
            }
            ClientFrame::Append {
                reference,
                events,
                idempotency_key,
            } => {
                self.append(reference, events.get(), idempotency_key.as_deref());
                Ok(())
            }
            ClientFrame::Command {
                reference,
                id,
                subject,
                action,
                params,
            } => {
                let data = json!({"action": action, "params": params});
                let event = json!({"topic": "agent.command.requested", "subject": subject, "id": id, "data": data});
                self.append(reference, &event.to_string(), None);
                Ok(())
            }
            ClientFrame::Ping { timestamp } => {
                self.send(&json!({"type": "pong", "timestamp": timestamp}))
                    .await
            }
            ClientFrame::Auth { token } => self.authenticate(&token).await,
            ClientFrame::GetStatus {} => {
                let (app, principal) = (self.app.clone(), self.principal.clone());
                self.work
                    .push(async move { status::frame(&app, &principal).await }.boxed());
                Ok(())
            }
        }
    }

    async fn subscribe(&mut self, wanted: frame::Subscribe) -> Result<(), Ended> {
        let id = wanted.id.clone();
        let begun = if self.subscriptions.iter().any(|one| one.id == id) {
            Err(Problem::parameter("id", "is in use: unsubscribe first"))
        } else if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            Err(Problem::new(
                Kind::InvalidParameter,
                format!("a socket has at most {SUBSCRIPTIONS_MAX} subscriptions"),
            ))
        } else {
            subscription::begin(&self.app, &self.principal, wanted, &self.wake).await
        };
        match begun {
            Ok(one) => {
                let cursor = self.app.hub.identity().encode(one.follower.after());
                self.subscriptions.push_back(one);
                self.send(&json!({"type": "subscribed", "id": id, "cursor": cursor}))
                    .await
            }
            Err(problem) => self.send(&frame::error(&problem, None, Some(&id))).await,
        }
    }

    /// Stores events while the socket goes on; the answer comes when they are committed.
    fn append(&mut self, reference: Option<String>, events: &str, key: Option<&str>) {
        let decoded = ingest::decode_text(events, &self.app.ingest).and_then(|mut decoded| {
            if let Some(key) = key {
                ingest::assign_ids(&mut decoded.events, key, 0);
            }
            append::admit(&self.principal, &mut decoded.events)?;
            Ok(decoded.events)
        });
        let (app, principal) = (self.app.clone(), self.principal.clone());
        let work = async move {
            let stored = match decoded {
                Ok(events) => append::append(&app, &principal, events).await,
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
    }

    async fn authenticate(&mut self, token: &str) -> Result<(), Ended> {
        match self.app.access.identify(Some(token)) {
            Ok(principal) if principal.tenant == self.principal.tenant => {
                self.principal = principal;
                let lost: Vec<String> = self
                    .subscriptions
                    .iter()
                    .filter(|one| self.principal.may_read(&one.filter).is_err())
                    .map(|one| one.id.clone())
                    .collect();
                for id in lost {
                    self.subscriptions.retain(|one| one.id != id);
                    let problem =
                        Problem::new(Kind::ForbiddenTopic, "the new credential may not read this");
                    self.send(&frame::error(&problem, None, Some(&id))).await?;
                }
                self.send(&json!({"type": "notice", "level": "info", "code": "authenticated", "message": "the new credential is in force"}))
                    .await
            }
            Ok(_) => Err(Some(Close::Policy("a connection keeps its tenant"))),
            Err(_) => Err(Some(Close::Unauthenticated)),
        }
    }

    async fn send(&mut self, frame: &serde_json::Value) -> Result<(), Ended> {
        self.send_message(frame::write(self.encoding, frame)).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), Ended> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Close::Overloaded("a frame was not taken in time"))),
        }
    }
}
