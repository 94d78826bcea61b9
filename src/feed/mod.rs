//! Who gets what, when: the window of newest events, the index of who wants which, and the one loop that every reader runs.
//!
//! # Invariants
//! - One read path: "after my cursor". The window answers if it can, else history does, through the gate.
//! - A slow reader costs a cursor, not a buffer; it never slows another reader or the database.
//! - Knows nothing of SSE, WebSocket or HTTP.

pub mod end;
pub mod error;
pub mod follow;
pub mod gate;
pub mod hub;
pub mod matching;
pub mod pace;
pub mod turn;
pub mod window;

pub use end::NoEnd;
pub use error::FollowError;
pub use follow::{AtHand, Batch, Behind, Follower, OnLag, Past, Start};
pub use hub::Hub;
pub use pace::Pace;
pub use turn::Turn;
