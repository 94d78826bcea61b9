//! Tests that need a real PostgreSQL: `script/with-postgres cargo nextest run`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

mod support;

mod append;
mod crash;
mod faults;
mod history;
mod wakeup;
