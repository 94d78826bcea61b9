//! The life of one WebSocket.
//!
//! # Invariants
//! - One task, one frame at a time: what the client does not take is not read from the log. It costs its cursors. The
//!   database is waited for elsewhere (`history`), for one subscription at a time; the others go on.
//! - A socket that does not take a frame for `SEND_TIMEOUT`, or shows no sign of life for two heartbeats, is closed with
//!   a code that tells it to resume.
//! - A connection lives no longer than its credential, nor than the server: whatever it reads is not waited for after that, and
//!   nothing that was read is sent. What was read is lost then, and nobody asks for it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

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
use super::history::{self, Reading};
use super::subscription::Subscription;
use super::watching::Watching;
use crate::access::{Lease, Principal};
use crate::event::limits::{CLOSE_TIMEOUT, SEND_TIMEOUT, SOCKET_APPENDS_MAX, WS_HEARTBEAT};
use crate::feed::Turn;
use crate::http::admission::Admission;
use crate::http::app::{App, Seat};
use crate::http::drain::Departure;
use crate::http::outage::Outage;
use crate::http::sessions::Session;
use crate::http::unfinished::{Refusal, Unfinished};
use crate::log::Sequence;

/// Pages that are delivered before the client is listened to again.
const PAGES_PER_TURN: u32 = 8;

/// How a socket that ended without a close is counted (RFC 6455, 7.1.5), and one whose close named no code.
const NO_CLOSE: u16 = 1006;
pub(super) const NO_CODE: u16 = 1005;

/// Ends the socket: with a code, or because it is gone.
pub(super) type Ended = Option<Close>;

/// See the module.
pub struct Socket {
    pub(super) app: App,
    pub(super) principal: Principal,
    pub(super) lease: Arc<Lease>,
    /// When it leaves a server that goes.
    pub(super) departure: Departure,
    /// Among those that are open.
    pub(super) session: Session,
    /// Among the credential's connections.
    pub(super) seat: Seat,
    pub(super) encoding: Encoding,
    line: WebSocket,
    message: Unfinished,
    pub(super) subscriptions: VecDeque<Subscription>,
    /// What is read for one of them that is behind.
    pub(super) history: Option<Reading>,
    /// Those of the server's own topics.
    pub(super) watching: Watching,
    pub(super) wake: Arc<Notify>,
    pub(super) work: FuturesUnordered<BoxFuture<'static, serde_json::Value>>,
    pub(super) heard_at: Instant,
    /// Its appends.
    pub(super) sequence: Sequence,
    /// What it may ask for.
    pub(super) admission: Admission,
    /// Appends in a row that were beyond its rate.
    pub(super) refusals: u32,
    /// The code with which the client has ended it.
    pub(super) heard_code: u16,
}

impl Socket {
    /// A socket that has just been opened.
    #[must_use]
    pub fn new(
        app: App,
        (principal, lease, seat, session): (Principal, Lease, Seat, Session),
        encoding: Encoding,
        line: WebSocket,
        message: Unfinished,
    ) -> Self {
        Self {
            admission: Admission::for_socket(&app, &principal),
            departure: app.drain.departure(),
            session,
            refusals: 0,
            heard_code: NO_CLOSE,
            app,
            principal,
            lease: Arc::new(lease),
            seat,
            encoding,
            line,
            message,
            subscriptions: VecDeque::new(),
            history: None,
            watching: Watching::default(),
            wake: Arc::new(Notify::new()),
            work: FuturesUnordered::new(),
            heard_at: Instant::now(),
            sequence: Sequence::next(),
        }
    }

    /// Serves it until it ends.
    pub async fn run(mut self) {
        let Err(ended) = self.serve().await;
        if ended.is_some_and(Close::waits_for_answers) {
            self.answer_what_is_under_way().await;
        }
        self.app.metrics.connections.unanswered(self.work.len());
        let code = ended.map_or(self.heard_code, |close| CloseFrame::from(close).code);
        self.app.metrics.connections.closed(code);
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
        let mut stopped = pin!(self.departure.due());
        let mut dropped = pin!(self.session.dropped());
        let wake = Arc::clone(&self.wake);
        let mut number = self.lease.number();
        let mut ended = pin!(self.lease.ended());
        let mut rested = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
        // Spread, so that ten thousand idle sockets do not beat in step.
        let phase = WS_HEARTBEAT.mul_f64(rand::rng().random_range(0.1..1.0));
        let first = tokio::time::Instant::now()
            .checked_add(phase)
            .unwrap_or_else(tokio::time::Instant::now);
        let mut heartbeat = tokio::time::interval_at(first, WS_HEARTBEAT);
        let mut outage = Outage::new(self.app.appender.breaker());
        let mut pages = 0_u32;
        loop {
            if number != self.lease.number() {
                number = self.lease.number();
                ended.set(self.lease.ended());
            }
            // Also when the clock was set, of which `ended` hears late.
            self.lease.check().map_err(|why| Some(why.into()))?;
            if self.departure.is_due() {
                return Err(Some(self.say_restarting().await?));
            }
            let mut is_behind = self.has_news();
            // Whoever has much to read listens to the client now and then.
            while is_behind && pages < PAGES_PER_TURN && !self.must_end() {
                pages = pages.saturating_add(1);
                // Boxed, as what sends events is: an idle socket keeps no room for it.
                Box::pin(self.deliver()).await?;
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
                why = &mut ended => return Err(Some(why.into())),
                why = &mut dropped => return Err(Some(why.into())),
                () = wake.notified(), if !is_behind => {}
                () = &mut rested, if rests_until.is_some() && !is_behind => {}
                _ = heartbeat.tick() => Box::pin(self.beat()).await?,
                answer = history::answer(&mut self.history) => Box::pin(self.deliver_past(answer.ok_or(None)?)).await?,
                mut notice = outage.notice() => {
                    if let Some(frame) = notice.as_object_mut() {
                        frame.insert("type".into(), "notice".into());
                    }
                    self.send(&notice).await?;
                }
                beat = self.watching.beat() => {
                    self.session.touch();
                    for frame in self.watching.frames(&beat, &self.principal) {
                        self.send(&frame).await?;
                    }
                }
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
                // Others have their turn too, and what keeps the time: `stopped` hears of it by that alone.
                () = tokio::task::yield_now(), if is_behind => {}
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
        self.subscriptions.iter().any(|one| self.is_next(one))
    }

    /// Whether a subscription is to be read now.
    pub(super) fn is_next(&self, one: &Subscription) -> bool {
        one.has_news() && !(one.waits_for_history && self.history.is_some())
    }

    /// When a subscription that rests is to be read again.
    fn rested(&self) -> Option<tokio::time::Instant> {
        let rests = self.subscriptions.iter();
        rests.filter_map(Subscription::rests_until).min()
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

    pub(super) async fn say_restarting(&mut self) -> Result<Close, Ended> {
        let retry_after_ms = self.app.drain.come_back_after().as_millis();
        let retry_after_ms = u64::try_from(retry_after_ms).unwrap_or(u64::MAX);
        let message = "the server is restarting: come back with your cursors";
        let notice = json!({"type": "notice", "level": "warn", "code": "restarting", "message": message, "retry_after_ms": retry_after_ms});
        self.send(&notice).await?;
        Ok(Close::Restarting)
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
    pub(super) async fn send_in_turn(
        &mut self,
        message: Message,
        turn: Option<Turn>,
    ) -> Result<(), Ended> {
        let bytes = weight(&message);
        let mut sending = pin!(self.line.send(message));
        let at_once = futures_util::poll!(&mut sending);
        drop(turn);
        let sent = match at_once {
            Poll::Ready(sent) => Ok(sent),
            // Nobody keeps a connection by taking nothing from it.
            Poll::Pending => {
                let _waiting = self.session.waits(bytes);
                tokio::select! {
                    biased;
                    why = self.lease.ended() => return Err(Some(why.into())),
                    why = self.session.dropped() => return Err(Some(why.into())),
                    sent = tokio::time::timeout(SEND_TIMEOUT, sending) => sent,
                }
            }
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => Err(Some(Close::Overloaded("a frame was not taken in time"))),
        }
    }
}

/// What a frame holds while it waits: itself, and the events that it is made of.
fn weight(message: &Message) -> usize {
    let bytes = match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    };
    bytes.saturating_mul(2)
}
