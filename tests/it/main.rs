//! Tests that need a real PostgreSQL: `script/with-postgres cargo nextest run`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

mod support;

mod append;
mod append_only;
mod concurrency;
mod crash;
mod embedded;
mod faults;
mod history;
mod permissions;
mod retention;
mod schema;
mod sql;
mod statements;
mod wakeup;
