//! What ends a socket whatever it does: its credential's end, and the server's.
//!
//! # Invariants
//! - Whatever a socket waits for on its own account it waits for here: no longer than it may live.
//! - What is given up is what the end makes useless. A read that another cause ended would have lost nothing either (`feed::follow`).
//! - What the client has sent to be stored is answered before a close that is none of its doing, if that takes no longer than a
//!   moment; what is not answered is stored all the same, and counted.

use futures_util::StreamExt as _;

use super::socket::{Ended, Socket};
use crate::access::Denied;
use crate::event::limits::FAREWELL_MAX;

/// Why a socket ends, whatever it waits for.
pub(super) enum Over {
    /// The server goes, and it is this one's turn.
    Stopped,
    /// The credential has ended.
    Denied(Denied),
}

impl Socket {
    /// Whether there is something more urgent than the next page.
    pub(super) fn must_end(&self) -> bool {
        self.departure.is_due() || self.lease.check().is_err()
    }

    /// Does what a socket may wait for, until it is done or the socket is over.
    pub(super) fn waiting<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, Over>> {
        let leaving = self.departure.due();
        let lease = self.lease.ended();
        async move {
            tokio::select! {
                biased;
                () = leaving => Err(Over::Stopped),
                why = lease => Err(Over::Denied(why)),
                done = work => Ok(done),
            }
        }
    }

    /// Sends the answers to what is under way. Nothing more is heard of the client by then, so no more comes.
    pub(super) async fn answer_what_is_under_way(&mut self) {
        let lease = self.lease.ended();
        let answering = async {
            while let Some(answer) = self.work.next().await {
                if self.send(&answer).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            _ = lease => {}
            _ = tokio::time::timeout(FAREWELL_MAX, answering) => {}
        }
    }

    /// What the client is told at the end.
    pub(super) async fn end(&mut self, over: Over) -> Ended {
        match over {
            Over::Stopped => self.say_restarting().await.map_or_else(|gone| gone, Some),
            Over::Denied(why) => Some(why.into()),
        }
    }
}
