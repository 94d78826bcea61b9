//! The life of one WebSocket.
//!
//! # Invariants
//! - One task, one frame at a time: what the client does not take is not read from the log. It costs its cursors.
//! - A socket that does not take a frame for `SEND_TIMEOUT`, or shows no sign of life for two heartbeats, is closed with
//!   a code that tells it to resume.
//! - A connection lives no longer than its credential.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::RngExt as _;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::close::Close;
use super::frame::{self, Encoding};
use super::subscription::Subscription;
use crate::access::{Lease, Principal};
use crate::event::limits::{
    CATCH_UP_EVENTS, CLOSE_TIMEOUT, SEND_TIMEOUT, SOCKET_APPENDS_MAX, WS_HEARTBEAT,
};
use crate::feed::{FollowError, Turn};
use crate::http::admission::Admission;
use crate::http::app::{App, Seat};
use crate::http::errors;
use crate::http::unfinished::{Refusal, Unfinished};
use crate::log::{ReadError, Sequence};

/// Clients are told to come back within this time after a restart, each at its own moment.
const RESTART_SPREAD_MS: u64 = 5_000;

/// Pages that are delivered before the client is listened to again.
const PAGES_PER_TURN: u32 = 8;

/// Ends the socket: with a code, or because it is gone.
pub(super) type Ended = Option<Close>;

/// Whether a delivery is part of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    Yes,
    No,
}

/// See the module.
pub struct Socket {
    pub(super) app: App,
    pub(super) principal: Principal,
    pub(super) lease: Lease,
    /// Among the credential's connections.
    pub(super) seat: Seat,
    pub(super) encoding: Encoding,
    line: WebSocket,
    message: Unfinished,
    pub(super) subscriptions: VecDeque<Subscription>,
    pub(super) wake: Arc<Notify>,
    pub(super) work: FuturesUnordered<BoxFuture<'static, serde_json::Value>>,
    pub(super) heard_at: Instant,
    /// Its appends.
    pub(super) sequence: Sequence,
    /// What it may ask for.
    pub(super) admission: Admission,
    /// Appends in a row that were beyond its rate.
    pub(super) refusals: u32,
}

impl Socket {
    /// A socket that has just been opened.
    #[must_use]
    pub fn new(
        app: App,
        (principal, lease, seat): (Principal, Lease, Seat),
        encoding: Encoding,
        line: WebSocket,
        message: Unfinished,
    ) -> Self {
        Self {
            admission: Admission::for_socket(&app, &principal),
            refusals: 0,
            app,
            principal,
            lease,
            seat,
            encoding,
            line,
            message,
            subscriptions: VecDeque::new(),
            wake: Arc::new(Notify::new()),
            work: FuturesUnordered::new(),
            heard_at: Instant::now(),
            sequence: Sequence::next(),
        }
    }

    /// Serves it until it ends.
    pub async fn run(mut self) {
        let Err(ended) = self.serve().await;
        if let Some(close) = ended {
            let frame = CloseFrame::from(close);
            let sending = self.line.send(Message::Close(Some(frame)));
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, sending).await;
            self.message.close();
        }
    }

    /// The client's close has its answer ready, which only has to be taken: without it a browser calls the close unclean.
    pub(super) async fn answer_close(&mut self) -> Ended {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.line.flush()).await;
        None
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Ended> {
        self.send(&self.welcome()).await?;
        // What is waited for is made once: making it anew for each event costs as much as the event.
        let stop = self.app.tasks.token().clone();
        let mut stopped = pin!(stop.cancelled());
        let wake = Arc::clone(&self.wake);
        let mut number = self.lease.number();
        let mut expiry = pin!(tokio::time::sleep_until(self.lease.deadline()));
        let mut revoked = pin!(self.lease.revoked());
        let mut rested = pin!(tokio::time::sleep_until(self.lease.deadline()));
        // Spread, so that ten thousand idle sockets do not beat in step.
        let phase = WS_HEARTBEAT.mul_f64(rand::rng().random_range(0.1..1.0));
        let first = tokio::time::Instant::now()
            .checked_add(phase)
            .unwrap_or_else(tokio::time::Instant::now);
        let mut heartbeat = tokio::time::interval_at(first, WS_HEARTBEAT);
        let mut pages = 0_u32;
        loop {
            if number != self.lease.number() {
                number = self.lease.number();
                expiry.as_mut().reset(self.lease.deadline());
                revoked.set(self.lease.revoked());
            }
            let mut is_behind = self.has_news();
            // Whoever has much to read listens to the client now and then.
            while is_behind && pages < PAGES_PER_TURN && !self.must_end() {
                pages = pages.saturating_add(1);
                self.deliver().await?;
                is_behind = self.has_news();
            }
            pages = 0;
            let rests_until = self.rested();
            if let Some(until) = rests_until.filter(|until| *until != rested.deadline()) {
                rested.as_mut().reset(until);
            }
            tokio::select! {
                biased;
                () = &mut stopped => return Err(Some(self.say_restarting().await?)),
                () = &mut expiry => return Err(Some(Close::Unauthenticated("the credential has expired"))),
                () = &mut revoked => return Err(Some(Close::Unauthenticated("the credential has been revoked"))),
                () = wake.notified(), if !is_behind => {}
                () = &mut rested, if rests_until.is_some() && !is_behind => {}
                _ = heartbeat.tick() => self.beat().await?,
                Some(answer) = self.work.next(), if !self.work.is_empty() => self.send(&answer).await?,
                // While too much of its work is under way the client is not listened to.
                message = self.line.recv(), if self.work.len() < SOCKET_APPENDS_MAX => match message {
                    Some(Ok(message)) => {
                        self.message.handed_on(&message);
                        self.hear(message).await?;
                    }
                    Some(Err(error)) => return Err(self.refusal(error)),
                    None => return Err(None),
                },
                () = async {}, if is_behind => {}
            }
        }
    }

    /// Why the client cannot be heard, if that is its own doing.
    fn refusal(&self, error: axum::Error) -> Ended {
        let inner = error.into_inner();
        if let Some(tungstenite::Error::Capacity(_)) = inner.downcast_ref() {
            self.message.refuse(Refusal::TooLong);
        }
        self.message.refusal().map(Close::from)
    }

    fn has_news(&self) -> bool {
        self.subscriptions.iter().any(Subscription::has_news)
    }

    /// When a subscription that has read history too often is to be read again.
    fn rested(&self) -> Option<tokio::time::Instant> {
        let rests = self.subscriptions.iter().map(|one| one.rests_until);
        rests.flatten().min()
    }

    /// Whether there is something more urgent than the next page.
    fn must_end(&self) -> bool {
        self.app.tasks.token().is_cancelled() || self.lease.check().is_err()
    }

    fn welcome(&self) -> serde_json::Value {
        json!({
            "type": "welcome",
            "connection_id": Uuid::now_v7().to_string(),
            "tenant": self.principal.tenant.as_str(),
            "cursor": self.app.hub.identity().encode(self.app.hub.head()),
            "heartbeat_s": WS_HEARTBEAT.as_secs(),
            "limits": self.app.in_force,
        })
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
        // Each once: whoever has been served goes to the end of the line.
        for _ in 0..self.subscriptions.len() {
            let Some(one) = self.subscriptions.pop_front() else {
                break;
            };
            if one.follower.has_news() {
                self.subscriptions.push_back(one);
                continue;
            }
            // Nothing to deliver, most likely, so this only moves the place up to the present.
            self.deliver_to(one, Beat::Yes).await?;
        }
        Ok(())
    }

    /// Delivers one page of the next subscription that has news.
    async fn deliver(&mut self) -> Result<(), Ended> {
        let next = self.subscriptions.iter().position(Subscription::has_news);
        match next.and_then(|index| self.subscriptions.remove(index)) {
            Some(one) => self.deliver_to(one, Beat::No).await,
            None => Ok(()),
        }
    }

    /// Delivers one page, or on a heartbeat at least the place that has been reached.
    async fn deliver_to(&mut self, mut one: Subscription, beat: Beat) -> Result<(), Ended> {
        let before = one.follower.after();
        let read = one.follower.read(CATCH_UP_EVENTS).await;
        // Kept for a page only: the other frames are small, and the line may be slow.
        let turn = one.follower.turn();
        let turn = turn.filter(|_| read.as_ref().is_ok_and(|batch| !batch.events.is_empty()));
        let identity = self.app.hub.identity().clone();
        match read {
            Ok(batch) => {
                one.end_rest();
                let cursor = identity.encode(batch.through);
                if let Some(skipped) = batch.skipped {
                    let from = identity.encode(skipped.from);
                    let mut gap = json!({"type": "gap", "id": one.id, "from": from, "to": cursor, "reason": "lag"});
                    if let (Some(count), Some(gap)) = (skipped.count, gap.as_object_mut()) {
                        gap.insert("count".into(), count.into());
                    }
                    self.send(&gap).await?;
                }
                if !batch.events.is_empty() {
                    let frame = frame::events(self.encoding, &one.id, &batch.events, &cursor);
                    self.send_in_turn(frame, turn).await?;
                } else if beat == Beat::Yes && batch.through != before {
                    self.send(&json!({"type": "cursor", "id": one.id, "cursor": cursor}))
                        .await?;
                }
                if batch.is_caught_up && !one.is_live {
                    one.is_live = true;
                    self.send(&json!({"type": "live", "id": one.id, "cursor": cursor}))
                        .await?;
                }
            }
            Err(FollowError::TooOften { wait }) => one.rest(wait),
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
                ReadError::Ahead | ReadError::Crowded | ReadError::Internal(_) => {
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

    pub(super) async fn send(&mut self, frame: &serde_json::Value) -> Result<(), Ended> {
        self.send_message(frame::write(self.encoding, frame)).await
    }

    pub(super) async fn send_message(&mut self, message: Message) -> Result<(), Ended> {
        self.send_in_turn(message, None).await
    }

    /// Waits until the line has taken what is to be written.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        match tokio::time::timeout(SEND_TIMEOUT, self.line.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Close::Overloaded("a pong was not taken in time"))),
        }
    }

    /// Sends a frame. The turn ends when the line has taken what it can at once: nobody waits for a slow one.
    async fn send_in_turn(&mut self, message: Message, turn: Option<Turn>) -> Result<(), Ended> {
        let mut sending = pin!(self.line.send(message));
        let at_once = futures_util::poll!(&mut sending);
        drop(turn);
        let sent = match at_once {
            Poll::Ready(sent) => Ok(sent),
            Poll::Pending => tokio::time::timeout(SEND_TIMEOUT, sending).await,
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Close::Overloaded("a frame was not taken in time"))),
        }
    }
}
