//! What a socket's subscriptions are sent.
//!
//! # Invariants
//! - A page at a time, and subscriptions take turns.
//! - What is waited for is waited for no longer than the socket may live (`end`). The database is not waited for here.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::Message;
use serde_json::json;

use super::close::Close;
use super::frame;
use super::history::{Answer, Reading};
use super::page;
use super::socket::{Ended, Socket};
use super::subscription::{Found, Read, Subscription};
use crate::event::Position;
use crate::event::limits::{CATCH_UP_EVENTS, WS_HEARTBEAT};
use crate::feed::{Behind, FollowError, Follower, Turn};
use crate::http::{errors, metrics};
use crate::log::ReadError;
use crate::telemetry::Transport;

/// What a subscription waits that the database cannot be asked for.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(250);

/// How a subscription ends its socket that has fallen behind.
const LAGGING: Close = Close::Overloaded("a subscription fell too far behind");

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
            if one.follower.is_none() || one.has_unread() {
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
        let next = self.subscriptions.iter().position(|one| self.is_next(one));
        match next.and_then(|index| self.subscriptions.remove(index)) {
            Some(one) => self.deliver_to(one, Beat::No).await,
            None => Ok(()),
        }
    }

    /// Delivers one page, or on a heartbeat at least the place that has been reached. Whoever is behind has history read for it.
    async fn deliver_to(&mut self, mut one: Subscription, beat: Beat) -> Result<(), Ended> {
        let before = one.after();
        let found = {
            let mut reading = pin!(one.read_at_hand(CATCH_UP_EVENTS));
            // What stands in the window is there at once: to wait for the end as well costs more than that.
            match futures_util::poll!(&mut reading) {
                Poll::Ready(found) => Ok(found),
                Poll::Pending => self.waiting(reading).await,
            }
        };
        let read = match found {
            Ok(Ok(Found::Read(read))) => Ok(read),
            Ok(Ok(Found::Behind(behind))) => return self.read_past(one, behind),
            Ok(Err(error)) => Err(error),
            Err(over) => return Err(self.end(over).await),
        };
        self.settle(one, read, (before, beat)).await
    }

    /// Has history read for a subscription, unless it is being read for another one.
    fn read_past(&mut self, mut one: Subscription, behind: Behind) -> Result<(), Ended> {
        let Some(follower) = one.follower.take() else {
            return Ok(());
        };
        if follower.stays().is_err() {
            return Err(Some(LAGGING));
        }
        if self.history.is_some() {
            one.follower = Some(follower);
            one.waits_for_history = true;
        } else {
            let account = self.session.account();
            let work = (follower, behind);
            self.history = Some(Reading::begin(&self.app.tasks, account, &one.id, work));
        }
        self.subscriptions.push_back(one);
        Ok(())
    }

    /// Delivers what history has brought.
    pub(super) async fn deliver_past(&mut self, answer: Answer) -> Result<(), Ended> {
        let id = self.history.take();
        let is_its = |one: &Subscription| id.as_ref().is_some_and(|id| id.id() == one.id);
        let index = self.subscriptions.iter().position(is_its);
        let Some(mut one) = index.and_then(|index| self.subscriptions.remove(index)) else {
            return Ok(());
        };
        let Answer {
            mut follower,
            past,
            waiting,
        } = answer;
        // Its credential may be another one by now.
        follower.set_pace(self.admission.pace());
        let before = follower.after();
        let read = match past {
            Ok(past) => {
                let turn = self.waiting(follower.take_turn_for(&past)).await;
                if let Err(over) = turn {
                    return Err(self.end(over).await);
                }
                Ok(one.take_back(follower, past))
            }
            Err(error) => {
                one.follower = Some(follower);
                Err(error)
            }
        };
        // From here on it counts as a frame.
        drop(waiting);
        self.settle(one, read, (before, Beat::No)).await
    }

    /// Does with a subscription what its read wants.
    async fn settle(
        &mut self,
        mut one: Subscription,
        read: Result<Read, FollowError>,
        place: (Position, Beat),
    ) -> Result<(), Ended> {
        let identity = self.app.hub.identity().clone();
        match read {
            Ok(read) => {
                // Kept for a page only: the other frames are small, and the line may be slow.
                let turn = one.follower.as_mut().and_then(Follower::turn);
                let turn = turn.filter(|_| !read.batch.events.is_empty());
                self.hand_on(&mut one, read, place, turn).await?;
            }
            Err(FollowError::TooOften { wait }) => one.rest(wait),
            Err(FollowError::Lagging) => return Err(Some(LAGGING)),
            Err(FollowError::Read(error)) => match error.as_ref() {
                ReadError::Expired { .. } => {
                    let skipped = one.follower.as_mut().map(Follower::skip_to_earliest);
                    if let Some((from, to)) = skipped {
                        let (from, to) = (identity.encode(from), identity.encode(to));
                        self.send(&json!({"type": "gap", "id": one.id, "from": from, "to": to, "reason": "retention"})).await?;
                    }
                }
                // Tried again: the socket stays, the place too. Not at once.
                ReadError::Unavailable(_) => one.rest(UNAVAILABLE_PAUSE),
                ReadError::Ahead | ReadError::Crowded | ReadError::Internal(_) => {
                    let _ = self.count();
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
