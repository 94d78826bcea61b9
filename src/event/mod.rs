//! The vocabulary: what an event is before and after it is written, topics, cursors, bounds.
//!
//! # Invariants
//! - Values are valid once built: whatever holds one need not check it again.
//! - No I/O, no async, no clock, no randomness.

pub mod cursor;
pub mod digest;
pub mod draft;
pub mod encode;
mod equal;
pub mod fields;
pub mod filter;
pub mod json;
pub mod limits;
pub mod name;
pub mod new_event;
pub mod priority;
pub mod recorded;
pub mod topic;
pub mod trace;

pub use cursor::{Cursor, LogIdentity, Position, Seq};
pub use filter::Filter;
pub use name::{EventId, Label, Tenant};
pub use new_event::{Expect, NewEvent, Payload};
pub use priority::{ByPriority, Priority};
pub use recorded::{Event, Receipt};
pub use topic::{Topic, TopicPattern};
pub use trace::TraceParent;
