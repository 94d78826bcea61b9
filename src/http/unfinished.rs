//! The message of a WebSocket that has begun and is not complete: the line counts what comes of it, the socket says when
//! one has been handed on.
//!
//! # Invariants
//! - What all sockets hold of unfinished messages is taken from one budget as it is read.
//! - Control frames between the parts of a message count for as long as they are read, and no longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Message;

use super::budget::Share;

/// Bytes that a client's control frame has beside its payload.
const CONTROL_HEAD_BYTES: usize = 6;

/// See the module. Clones share it: the line has one, the socket another.
#[derive(Debug, Clone, Default)]
pub struct Unfinished(Arc<Mutex<State>>);

/// Why a line is not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room for what comes.
    Full,
    /// A message was not complete in time.
    Late,
    /// A message is too long.
    TooLong,
}

#[derive(Debug, Default)]
struct State {
    /// Absent while the connection is no WebSocket: nothing is counted.
    share: Option<Share>,
    bytes: usize,
    refusal: Option<Refusal>,
    is_closed: bool,
}

impl Unfinished {
    /// Counts from now on.
    pub fn begin(&self, share: Share) {
        self.state().share = Some(share);
    }

    /// Counts what was read; whether there was room for it.
    #[must_use]
    pub fn read(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let bytes = state.bytes.saturating_add(bytes);
        let Some(share) = &mut state.share else {
            return true;
        };
        let has_room = share.resize(bytes);
        if has_room {
            state.bytes = bytes;
        }
        has_room
    }

    /// Whether a message has begun.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.state().bytes > 0
    }

    /// The socket has been given this. What was read along with the end of a message is less than a read buffer: it is not
    /// counted.
    pub fn handed_on(&self, message: &Message) {
        let mut state = self.state();
        state.bytes = match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                let bytes = payload.len().saturating_add(CONTROL_HEAD_BYTES);
                state.bytes.saturating_sub(bytes)
            }
            Message::Text(_) | Message::Binary(_) | Message::Close(_) => 0,
        };
        let bytes = state.bytes;
        // Smaller than before: there is always room.
        let _ = state
            .share
            .as_mut()
            .is_some_and(|share| share.resize(bytes));
    }

    /// Nothing more is read, for this reason unless there is one already.
    pub fn refuse(&self, refusal: Refusal) {
        self.state().refusal.get_or_insert(refusal);
    }

    /// The socket has had the last word.
    pub fn close(&self) {
        self.state().is_closed = true;
    }

    /// Whether the socket has had the last word, which its client may not have read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Why nothing more is read.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.state().refusal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::limits::SHARE_BYTES_FREE;
    use crate::http::budget::Budget;

    #[test]
    fn control_frames_neither_end_a_message_nor_add_up() {
        // Of which a tenant gets 1,000.
        let budget = Budget::new(1_334);
        let message = Unfinished::default();
        assert!(message.read(usize::MAX), "no WebSocket yet");
        assert!(!message.is_begun());
        message.begin(budget.share(&crate::event::Tenant::dev()));
        assert!(message.read(SHARE_BYTES_FREE + 900));
        for length in (0..90).cycle().take(1_000) {
            assert!(message.read(length + CONTROL_HEAD_BYTES));
            message.handed_on(&Message::Pong(vec![b'x'; length].into()));
        }
        assert!(!message.read(101), "no room");
        assert_eq!((budget.taken(), message.is_begun()), (900, true));
        message.handed_on(&Message::Text("whole".into()));
        assert_eq!((budget.taken(), message.is_begun()), (0, false));
    }
}
