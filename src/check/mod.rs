//! Checks of a running server, over the wire: named, each with what was measured and, if it fails, the cause and what to do.
//!
//! # Invariants
//! - It knows the public contract and nothing else of this crate's server: what is checked is what any client gets.
//! - What was not checked is said, with the reason; it never counts as passed.
//! - Whatever is written stands under `check.<run>.*` and is about one subject, by which it is erased in the end.
//! - Bounded in time: a check that takes too long has failed, and so have those that were not begun when the time was up.

mod batches;
pub mod drill;
mod errors;
mod flaw;
mod functions;
mod integrity;
mod isolation;
mod list;
mod live;
mod performance;
mod probe;
mod reliability;
mod report;
mod run;
pub mod tally;
mod timing;
mod transports;

pub use flaw::Flaw;
pub use list::Depth;
pub use live::Wire;
pub use performance::Load;
pub use report::{Figures, Finding, Outcome, Report};
pub use run::{Plan, Progress, run};
pub use tally::Tally;
pub use timing::Spread;
