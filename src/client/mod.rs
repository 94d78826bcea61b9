//! A client of a Tidewire server: it appends events and follows the log over HTTP, as any program would.
//!
//! # Invariants
//! - It knows the public contract and nothing else of this crate's server.
//! - The token appears in no `Debug`, error, log line or URL.
//! - Whatever may have been stored is sent again under the same id, so that a broken line stores nothing twice.
//! - Memory is bounded: one batch of lines, or one message of a stream.

mod answer;
pub mod append;
mod backoff;
pub mod committed;
pub mod error;
pub mod exchange;
pub mod follow;
mod http;
mod line;
pub mod lines;
pub mod page;
pub mod problem;
mod resource;
pub mod secret;
pub mod socket;
pub mod sse;
mod trust;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Sending, Stored};
pub use append::Appender;
pub use backoff::{pause, pause_until};
pub use committed::{Committed, Span};
pub use error::Error;
pub use exchange::Exchange;
pub use follow::{Following, Step};
pub use http::Client;
pub use line::Line;
pub use lines::Lines;
pub use page::{Page, Selection, Start};
pub use problem::Problem;
pub use secret::Secret;
pub use socket::Socket;
pub use trust::trusting;

pub use crate::event::digest::IdsDigest;
