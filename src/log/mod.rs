//! The only floor that reads or writes the log.
//!
//! # Invariants
//! - An event, once read by anyone, never changes, but that it may be erased, and keeps its place. A reader that has
//!   passed a place never meets a smaller one later.
//! - All SQL is `const` text or a definition in `sql/`; none is built from parts.
//! - Knows nothing of HTTP, sessions or who is connected.

pub mod append;
mod batch;
pub mod breaker;
mod classes;
pub mod consumers;
mod drained;
pub mod erasure;
pub mod error;
pub mod facts;
mod gather;
pub mod group;
pub mod identity;
pub mod inbox;
pub mod lane;
pub mod listener;
mod load;
mod loan;
pub mod look;
mod own;
pub mod patient;
mod places;
pub mod queue;
pub mod read;
mod repeats;
pub mod retaining;
pub mod row;
mod rows;
mod settle;
pub mod span;
pub mod sql_appends;
pub mod status;
pub mod subject;
pub mod tail;
pub mod trouble;
pub mod upkeep;
mod waiting;
pub mod wakeup;
pub mod watches;
pub mod watermark;
pub mod writer;

pub use append::{AppendOptions, Appended, Appender, AppenderSettings};
pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use error::{AppendError, ReadError, Unavailable};
pub use group::{Leave, May, Sequence};
pub use identity::Identity;
pub use read::{History, Page};
pub use trouble::{Finding, Trouble};
// What the database says of itself, for the floors above, which do not know `pg`.
pub use crate::pg::{Resource, Shortage};
