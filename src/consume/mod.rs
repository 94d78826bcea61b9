//! Named readers of the log that the server itself is: each has a name, a stored place, and one active worker among all servers.
//!
//! # Invariants
//! - What a consumer does and where it stands change in one transaction: a worker that is killed has done a step or not, and
//!   another goes on where it was.
//! - One worker of a name is active, by a lock on a connection of its own. Should two believe it, as behind a pooler, each step
//!   still begins where the last one ended, or is taken back.
//! - Nothing above the watermark is read as an event: a place that is passed is never filled later.
//! - Knows nothing of HTTP or of who is connected.

pub mod runner;
pub mod standing;
pub mod watch;

pub use runner::run;
pub use standing::Standing;
pub use watch::Watch;
