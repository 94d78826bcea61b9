//! What a socket's subscriptions are sent.
//!
//! # Invariants
//! - A page at a time, and subscriptions take turns.
//! - What is waited for is waited for no longer than the socket may live (`end`).

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::Message;
use serde_json::json;

use super::close::Close;
use super::frame;
use super::page;
use super::socket::{Ended, Socket};
use super::subscription::{Read, Subscription};
use crate::event::Position;
use crate::event::limits::{CATCH_UP_EVENTS, WS_HEARTBEAT};
use crate::feed::{FollowError, Turn};
use crate::http::{errors, metrics};
use crate::log::ReadError;
use crate::tasks::pause;
use crate::telemetry::Transport;

/// What a subscription waits that the database cannot be asked for.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(250);

/// Whether a delivery is part of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    Yes,
    No,
}

impl Socket {
    /// Shows that the server is there, where every subscription stands, and looks whether the client is.
    pub(super) async fn beat(&mut self) -> Result<(), Ended> {
        if self.heard_at.elapsed() > WS_HEARTBEAT.saturating_mul(2) {
            return Err(Some(Close::HeartbeatMissed));
        }
        self.send_message(Message::Ping(bytes::Bytes::new()))
            .await?;
        // Each once: whoever has been served goes to the end of the line.
        for _ in 0..self.subscriptions.len() {
            if self.must_end() {
                break;
            }
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
    pub(super) async fn deliver(&mut self) -> Result<(), Ended> {
        let next = self.subscriptions.iter().position(Subscription::has_news);
        match next.and_then(|index| self.subscriptions.remove(index)) {
            Some(one) => self.deliver_to(one, Beat::No).await,
            None => Ok(()),
        }
    }

    /// Delivers one page, or on a heartbeat at least the place that has been reached.
    async fn deliver_to(&mut self, mut one: Subscription, beat: Beat) -> Result<(), Ended> {
        let before = one.follower.after();
        let read = {
            let mut reading = pin!(one.read(CATCH_UP_EVENTS));
            // What stands in the window is there at once: to wait for the end as well costs more than that.
            match futures_util::poll!(&mut reading) {
                Poll::Ready(read) => Ok(read),
                Poll::Pending => self.waiting(reading).await,
            }
        };
        let read = match read {
            Ok(read) => read,
            Err(over) => return Err(self.end(over).await),
        };
        // Kept for a page only: the other frames are small, and the line may be slow.
        let turn = one.follower.turn();
        let turn = turn.filter(|_| {
            read.as_ref()
                .is_ok_and(|read| !read.batch.events.is_empty())
        });
        let identity = self.app.hub.identity().clone();
        match read {
            Ok(read) => {
                let place = (before, beat);
                self.hand_on(&mut one, read, place, turn).await?;
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
                    let paused = self.waiting(pause(UNAVAILABLE_PAUSE)).await;
                    if let Err(over) = paused {
                        return Err(self.end(over).await);
                    }
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

    /// Sends what was read, and that the subscription is live once it is; `before`: the place it had reached.
    async fn hand_on(
        &mut self,
        one: &mut Subscription,
        Read { batch, left_out }: Read,
        (before, beat): (Position, Beat),
        turn: Option<Turn>,
    ) -> Result<(), Ended> {
        let identity = self.app.hub.identity().clone();
        one.end_rest();
        let cursor = identity.encode(batch.through);
        if let Some(skipped) = batch.skipped {
            let from = identity.encode(skipped.from);
            let mut gap =
                json!({"type": "gap", "id": one.id, "from": from, "to": cursor, "reason": "lag"});
            if let (Some(count), Some(gap)) = (skipped.count, gap.as_object_mut()) {
                gap.insert("count".into(), count.into());
            }
            self.send(&gap).await?;
        }
        if !batch.events.is_empty() {
            let frame = page::events(self.encoding, &one.id, &batch.events, &cursor, left_out);
            self.send_in_turn(frame, turn).await?;
            self.session.touch();
            metrics::delivered(&self.app, Transport::WebSocket, &batch);
            one.conflate_next(&batch);
        } else if beat == Beat::Yes && batch.through != before {
            self.send(&json!({"type": "cursor", "id": one.id, "cursor": cursor}))
                .await?;
        }
        if batch.is_caught_up && !one.is_live {
            one.is_live = true;
            self.send(&json!({"type": "live", "id": one.id, "cursor": cursor}))
                .await?;
        }
        Ok(())
    }
}
