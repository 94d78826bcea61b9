//! What history is read for one subscription of a socket, while the socket goes on.
//!
//! # Invariants
//! - Whatever the database does, the socket's other subscriptions, its pings and its answers go on.
//! - One at a time of each socket: no more is held for it than a page, which counts as what waits for its client.
//! - It ends with what is kept here: nobody reads for a socket that is gone, or a subscription that has ended.
//! - No turn is held: the socket may be stuck with a frame.

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::event::limits::CATCH_UP_EVENTS;
use crate::feed::{Behind, FollowError, Follower, Past};
use crate::http::sessions::{Account, Waiting};
use crate::tasks::Tasks;

/// A read of history that is under way.
#[derive(Debug)]
pub struct Reading {
    id: String,
    answer: oneshot::Receiver<Answer>,
    _ends: DropGuard,
}

/// The follower, and what was read for it.
#[derive(Debug)]
pub struct Answer {
    /// It goes on from its place.
    pub follower: Follower,
    /// To be handed out.
    pub past: Result<Past, FollowError>,
    /// Until then it counts.
    pub waiting: Option<Waiting>,
}

impl Reading {
    /// Begins to read for the subscription of this name, on account of its session.
    pub fn begin(
        tasks: &Tasks,
        account: Account,
        id: &str,
        (mut follower, behind): (Follower, Behind),
    ) -> Self {
        let (sender, answer) = oneshot::channel();
        let end = CancellationToken::new();
        let ends = end.clone().drop_guard();
        tasks.spawn_until_stop(async move {
            let reading = async {
                let past = follower.read_behind(behind, CATCH_UP_EVENTS).await;
                let bytes = past.as_ref().map_or(0, Past::bytes);
                let waiting = (bytes > 0).then(|| account.waits(bytes));
                Answer {
                    follower,
                    past,
                    waiting,
                }
            };
            if let Some(answer) = end.run_until_cancelled(reading).await {
                let _ = sender.send(answer);
            }
        });
        Self {
            id: id.to_owned(),
            answer,
            _ends: ends,
        }
    }

    /// The name of the subscription.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Waits for the answer, for ever if nothing is read. None if there will be none: the server ends. Dropping it loses nothing.
pub async fn answer(reading: &mut Option<Reading>) -> Option<Answer> {
    match reading {
        Some(reading) => (&mut reading.answer).await.ok(),
        None => std::future::pending().await,
    }
}
