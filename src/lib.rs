//! Tidewire: real-time sync on PostgreSQL.
//!
//! One append-only table is the system; this crate is the window onto it. The floors, from the top: `cli` and `app`,
//! `http`, `feed`, `consume`, `access`, `log`, `pg`, `event`; arrows point down only (`tests/architecture.rs`).

pub mod access;
pub mod app;
pub mod backoff;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod consume;
pub mod event;
pub mod fair;
pub mod feed;
pub mod http;
pub mod log;
pub mod pg;
pub mod tasks;
pub mod telemetry;
pub mod tls;
