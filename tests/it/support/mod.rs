//! Fixtures: a database of its own for each test, servers, clients, a proxy that breaks lines, waiting on conditions.

pub mod authority;
pub mod client;
pub mod clock;
pub mod collector;
pub mod credentials;
pub mod db;
pub mod dump;
pub mod held;
pub mod keys;
pub mod proxy;
pub mod raw;
pub mod reader;
pub mod refused;
pub mod server;
pub mod signal;
pub mod skip;
pub mod sql;
pub mod tmpfs;
pub mod token;
pub mod wait;

pub use client::Api;
pub use db::TestDb;
pub use proxy::Proxy;
pub use server::{Process, Server};
pub use wait::eventually;
