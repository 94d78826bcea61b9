//! Why a socket is closed: the code tells the client whether to come back.

use axum::extract::ws::CloseFrame;

use crate::access::Denied;
use crate::http::sessions::Why;
use crate::http::unfinished::Refusal;
use crate::telemetry::Eviction;

/// See PROTOCOL: codes, and what a client does about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Nothing has happened on it, and an administrator wants it gone. Come back when there is something to do.
    Idle,
    /// The client broke the protocol. Do not come back the same way.
    Policy(&'static str),
    /// A frame beyond its bound. Do not send it again.
    TooLarge,
    /// The server restarts. Come back after the hint.
    Restarting,
    /// The reader fell behind and asked for this, a frame could not be sent in time, or the server needs the memory. Come back
    /// with the cursor.
    Overloaded(&'static str),
    /// The credential has ended. Come back with another.
    Unauthenticated(&'static str),
    /// It went on sending beyond its rate. Come back after the hint.
    RateLimited,
    /// No sign of life. Come back.
    HeartbeatMissed,
    /// A message was not complete in time. Come back.
    MessageLate,
}

impl Close {
    /// Whether the client may still be there to take the answers to what it has sent, and has done nothing for which it gets none.
    pub const fn waits_for_answers(self) -> bool {
        matches!(self, Self::Restarting | Self::Idle | Self::RateLimited)
    }
}

impl From<Refusal> for Close {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Overloaded("too much is being received at once"),
            Refusal::Late => Self::MessageLate,
            Refusal::TooLong => Self::TooLarge,
        }
    }
}

impl From<Why> for Close {
    fn from(why: Why) -> Self {
        match why {
            Why::Idle => Self::Idle,
            Why::Evicted(Eviction::Slow) => {
                Self::Overloaded("too slow for a server short of memory: resume with the cursors")
            }
            Why::Evicted(_) => {
                Self::Overloaded("idle, and the server is short of memory: resume with the cursors")
            }
        }
    }
}

impl From<Denied> for Close {
    /// For what a credential ends with while a socket is open.
    fn from(ended: Denied) -> Self {
        Self::Unauthenticated(match ended {
            Denied::Expired => "the credential has expired",
            _ => "the credential has been revoked, or what it grants was changed",
        })
    }
}

impl From<Close> for CloseFrame {
    fn from(close: Close) -> Self {
        let (code, reason) = match close {
            Close::Idle => (1001, "idle: closed by an administrator"),
            Close::Policy(reason) => (1008, reason),
            Close::TooLarge => (1009, "a frame is at most 1 MiB"),
            Close::Restarting => (1012, "restarting"),
            Close::Overloaded(reason) => (1013, reason),
            Close::Unauthenticated(reason) => (4401, reason),
            Close::RateLimited => (4429, "rate limited"),
            Close::HeartbeatMissed => (4408, "no sign of life"),
            Close::MessageLate => (4408, "a message was not complete in time"),
        };
        Self {
            code,
            reason: reason.into(),
        }
    }
}
